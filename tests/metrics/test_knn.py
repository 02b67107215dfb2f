import pytest
import torch
import torch.nn.functional as F

from omnistream.metrics import KNNAccuracy, knn_accuracy, knn_votes, nearest_neighbors

BANK = F.normalize(torch.sin(0.9 * torch.arange(48.0)).view(12, 4), dim=-1)
LABELS = torch.arange(12) % 3
QUERIES = F.normalize(torch.cos(0.9 * torch.arange(8.0) + 0.2).view(2, 4), dim=-1)


@pytest.mark.parametrize("rows_at_once", [1, 5, 12, 100])
def test_votes_equal_dinov3s(rows_at_once):
    """Numbers recorded from dinov3/eval/knn.py."""
    found = nearest_neighbors(QUERIES, BANK, 10, rows_at_once)
    assert found.index[:, :3].tolist() == [[4, 11, 9], [5, 10, 3]]
    votes = knn_votes(found.similarity, LABELS[found.index], 3, (3, 5, 10))
    expected = [
        [[0.015083, 0.504518, 0.470504], [0.017184, 0.504518, 0.478298]],
        [[0.020441, 0.036154, 0.939184], [0.023444, 0.037371, 0.939184]],
    ]
    torch.testing.assert_close(votes[:, :2], torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(votes[:, 2].sum(-1), torch.ones(2))


def test_more_neighbours_than_samples_are_all_of_them():
    found = nearest_neighbors(QUERIES, BANK, 200)
    assert found.index.shape == (2, 12)
    assert found.index[0].sort().values.tolist() == list(range(12))
    votes = knn_votes(found.similarity, LABELS[found.index], 3, (12, 200))
    assert torch.equal(votes[:, 0], votes[:, 1])


def test_parts_of_the_training_set_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    bank, queries = (F.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (333, 17))
    whole = (queries @ bank.T).topk(20)
    for rows in (7, 64, 333):
        found = nearest_neighbors(3 * queries, bank, 20, rows)
        assert torch.equal(found.index, whole.indices)
        torch.testing.assert_close(found.similarity, whole.values)


def test_temperature_decides_between_near_and_many():
    similarity, classes = torch.tensor([[0.9, 0.6, 0.6]]), torch.tensor([[0, 1, 1]])
    near, many = (knn_votes(similarity, classes, 2, [3], temperature)[0, 0] for temperature in (0.07, 10.0))
    assert near.argmax() == 0
    assert many.argmax() == 1
    assert near[1] == pytest.approx(float(2 / (torch.tensor(0.3 / 0.07).exp() + 2)))


def test_accuracy_of_separate_classes():
    bank = torch.eye(3).repeat_interleave(4, 0) * torch.arange(1.0, 13)[:, None]  # lengths do not matter
    labels = torch.arange(3).repeat_interleave(4)
    queries, target = torch.eye(3) + 0.1, torch.tensor([0, 1, 0])
    metric = KNNAccuracy(bank, labels, k=4)
    metric.update(queries, target)
    assert metric.compute() == knn_accuracy(queries, target, bank, labels, k=4) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least one neighbour and one training sample, got k = 0 and 12"):
        KNNAccuracy(bank, labels, k=0)
    with pytest.raises(ValueError, match="got k = 20 and 0"):
        KNNAccuracy(bank[:0], labels[:0])

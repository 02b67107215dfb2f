import pytest
import torch

from omnistream.tasks.probing.linear import fit_linear_probe


def moving_spot(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four frames of four places: a spot of random strength runs left or right; noise elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    tokens = 0.3 * torch.randn(count, 4, 4, 16, generator=generator)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(9))
    for i, label in enumerate(labels.tolist()):
        for t in range(4):
            tokens[i, t, t if label else 3 - t] += direction * (1 + torch.rand((), generator=generator))
    return tokens.flatten(1, 2), labels


def test_reads_motion_that_no_frame_alone_shows():
    train, test = moving_spot(200, 0), moving_spot(100, 1)
    assert fit_linear_probe(*train, *test, num_classes=2).accuracy > 0.95


def test_order_of_frames_is_what_it_reads():
    (tokens, labels), test = moving_spot(200, 0), moving_spot(100, 1)
    backwards = test[0].unflatten(1, (4, 4)).flip(1).flatten(1, 2)
    assert fit_linear_probe(tokens, labels, backwards, test[1], num_classes=2).accuracy < 0.05


def test_random_labels_are_not_learned():
    (tokens, _), (other, _) = moving_spot(300, 0), moving_spot(300, 1)
    labels = torch.arange(300) % 6
    result = fit_linear_probe(tokens, labels, other, labels, num_classes=6)
    assert 0.08 < result.accuracy < 0.27


def test_clear_errors():
    tokens, labels = moving_spot(10, 0)
    with pytest.raises(ValueError, match=r"labels in \[0, 1\)"):
        fit_linear_probe(tokens, labels, tokens, labels, num_classes=1)
    with pytest.raises(ValueError, match="leaves nothing"):
        fit_linear_probe(tokens, labels, tokens, labels, num_classes=2, holdout=0.0)

import pytest
import torch

from omnistream.tasks.probing import RidgeClassifier


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


def fitted(tokens, labels, num_classes=2, **options):
    classifier = RidgeClassifier(num_classes, **options)
    classifier.fit(tokens, labels)
    return classifier


def accuracy(classifier, tokens, labels):
    return float((classifier(tokens).argmax(-1) == labels).float().mean())


def test_reads_motion_that_no_frame_alone_shows():
    assert accuracy(fitted(*moving_spot(200, 0)), *moving_spot(100, 1)) > 0.95


def test_order_of_frames_is_what_it_reads():
    classifier, (tokens, labels) = fitted(*moving_spot(200, 0)), moving_spot(100, 1)
    backwards = tokens.unflatten(1, (4, 4)).flip(1).flatten(1, 2)
    assert accuracy(classifier, backwards, labels) < 0.05


def test_random_labels_are_not_learned():
    (tokens, _), (other, _) = moving_spot(300, 0), moving_spot(300, 1)
    labels = torch.arange(300) % 6
    assert 0.08 < accuracy(fitted(tokens, labels, num_classes=6), other, labels) < 0.27


def test_weights_are_ridge_regression_on_standardised_components():
    tokens, labels = moving_spot(60, 0)
    classifier = fitted(tokens, labels, num_components=4)
    rows = tokens.double().flatten(0, 1)
    rows = (rows - rows.mean(0)) / rows.std(0)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:4]
    x = (rows @ axes.T).view(60, -1)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.nn.functional.one_hot(labels, 2).double() - 0.5
    weight = torch.linalg.solve(x.T @ x + classifier.penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    # The sign and order of the axes are free; the scores are not. The tolerance is float32's.
    torch.testing.assert_close(classifier(tokens), (x @ weight).float(), atol=1e-6, rtol=1e-5)


def test_it_is_saved_with_the_sizes_of_its_data():
    tokens, labels = moving_spot(60, 0)
    classifier, again = fitted(tokens, labels), RidgeClassifier(2)
    with pytest.raises(RuntimeError, match="was not fitted"):
        again(tokens)
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(tokens), classifier(tokens))


def test_clear_errors():
    tokens, labels = moving_spot(10, 0)
    with pytest.raises(ValueError, match=r"labels in \[0, 1\)"):
        fitted(tokens, labels, num_classes=1)
    with pytest.raises(ValueError, match="leaves nothing"):
        fitted(tokens, labels, holdout=0.0)

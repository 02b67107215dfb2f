"""J, F and their statistics against numbers of the official tool (davisvideochallenge/davis2017-evaluation)."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from omnistream.metrics import (
    boundary_accuracy,
    object_scores,
    region_similarity,
    score_decay,
    score_mean,
    score_recall,
    score_statistics,
)
from omnistream.metrics.vos import _boundary

SIZE = (20, 30)
EXACT = {"atol": 1e-6, "rtol": 0}  # six decimals of the official values are known


def box(y0, y1, x0, x1, size=SIZE):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disc(row, column, square, size=SIZE):
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (y - row) ** 2 + (x - column) ** 2 <= square


def checkers():
    y, x = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    return (y // 3 + x // 4) % 2 == 0


A, EMPTY, FULL = box(5, 15, 8, 20), box(0, 0, 0, 0), box(0, 20, 0, 30)
BALL = disc(10, 14, 49)
# Truth, prediction, J, F; A is rows 5 to 14, columns 8 to 19.
PAIRS = {
    "shifted by 1": (A, box(5, 15, 9, 21), 0.846154, 1),
    "shifted by 2": (A, box(5, 15, 10, 22), 0.714286, 0.590909),
    "shifted by 3": (A, box(5, 15, 11, 23), 0.6, 0.545455),
    "shifted by (3, 3)": (A, box(8, 18, 11, 23), 0.355932, 0.136364),
    "dilated by 2": (A, box(3, 17, 6, 22), 0.535714, 0),
    "both empty": (EMPTY, EMPTY, 1, 1),
    "only the truth empty": (EMPTY, A, 0, 0),
    "only the prediction empty": (A, EMPTY, 0, 0),
    "both full": (FULL, FULL, 1, 1),
    "only the truth full": (FULL, A, 0.2, 0),
    "full and empty": (FULL, EMPTY, 0, 1),
    "at the top": (box(0, 10, 0, 12), box(0, 10, 1, 13), 0.846154, 0.851852),
    "in the corner": (box(10, 20, 18, 30), box(8, 18, 16, 28), 0.5, 0.179104),
    "from top to bottom": (box(0, 20, 0, 15), box(0, 20, 0, 18), 0.833333, 0),
    "smaller disc": (BALL, disc(10, 14, 25), 0.543624, 0.347826),
    "shifted disc": (BALL, disc(11, 16, 49), 0.655556, 0.533333),
    "checkers": (checkers(), BALL, 0.218919, 0.383721),
    "single pixels": (box(7, 8, 9, 10), box(7, 8, 10, 11), 0, 1),
    "radius 2": (disc(60, 100, 1600, (120, 214)), disc(63, 104, 1444, (120, 214)), 0.835996, 0.382911),
    "radius 8": (disc(240, 400, 14400, (480, 854)), disc(246, 409, 13225, (480, 854)), 0.878057, 0.609086),
}


@pytest.mark.parametrize("name", PAIRS)
def test_single_masks_score_as_officially(name):
    truth, prediction, region, boundary = PAIRS[name]
    assert float(region_similarity(prediction[None], truth[None])) == pytest.approx(region, abs=1e-6)
    assert float(boundary_accuracy(prediction[None], truth[None])) == pytest.approx(boundary, abs=1e-6)


def test_a_tolerance_of_one_or_more_is_in_pixels():
    shifted = box(5, 15, 11, 23)
    assert float(boundary_accuracy(shifted[None], A[None], tolerance=3)) == 1
    assert float(boundary_accuracy(shifted[None], A[None], tolerance=1)) == pytest.approx(0.545455, abs=1e-6)


@pytest.mark.parametrize(
    ("mask", "count"),
    [(A, 44), (box(0, 10, 0, 12), 21), (box(10, 20, 18, 30), 23), (box(5, 15, 20, 30), 31), (EMPTY, 0), (FULL, 0)],
)
def test_borders_of_the_frame_are_no_boundary(mask, count):
    assert len(_boundary(mask.byte(), 0, 0, 0).points.frame) == count


def test_boundary_pixels_lie_towards_the_origin():
    found = _boundary(box(7, 8, 9, 10).byte(), 0, 0, 0).points
    assert list(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [(6, 8), (6, 9), (7, 8), (7, 9)]


def dense_boundary_accuracy(prediction, truth, radius):
    """By dilation, as the official tool does it, with SciPy."""

    def edges(mask):
        found = np.zeros_like(mask)
        found[:-1, :-1] = (
            (mask[:-1, :-1] != mask[:-1, 1:]) | (mask[:-1, :-1] != mask[1:, :-1]) | (mask[:-1, :-1] != mask[1:, 1:])
        )
        found[-1, :-1], found[:-1, -1] = mask[-1, :-1] != mask[-1, 1:], mask[:-1, -1] != mask[1:, -1]
        return found

    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    shape, pred, true = y**2 + x**2 <= radius**2, edges(prediction), edges(truth)
    if not pred.any() or not true.any():
        return float(pred.any() == true.any())
    precision = (pred & binary_dilation(true, shape)).sum() / pred.sum()
    recall = (true & binary_dilation(pred, shape)).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_many_objects_at_once_score_as_each_alone(seed):
    """Random ids in frames of odd sizes, with objects that cross all borders, touch each other or are absent."""
    generator = np.random.default_rng(seed)
    H, W, T, K = *generator.integers(3, 40, 2), 4, 3
    videos = generator.integers(0, K + 1, (2, T, H // 3 + 1, W // 5 + 1)).astype(np.uint8)
    preds, target = videos.repeat(3, axis=2).repeat(5, axis=3)[:, :, :H, :W]
    preds[1], target[2], preds[3], target[3] = 0, 2, target[3], np.roll(target[3], 1)
    radius = int(generator.integers(1, 6))
    scores = object_scores(torch.from_numpy(preds.copy()), torch.from_numpy(target.copy()), K, tolerance=radius)
    for k in range(1, K + 1):
        for t in range(T):
            p, q = preds[t] == k, target[t] == k
            union = (p | q).sum()
            assert float(scores.region[k - 1, t]) == pytest.approx((p & q).sum() / union if union else 1, abs=1e-12)
            expected = dense_boundary_accuracy(p, q, radius)
            assert float(scores.boundary[k - 1, t]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("radius", [24, 25, 60])
def test_wide_discs_are_exact(radius):
    """Their rows are longer than the runs of pixels that are looked up at once."""
    size = (30, 150)
    truth = box(3, 5, 70, 72, size)
    prediction = box(3, 5, 70 + radius, 73 + radius, size) | box(3, 6, 70 - radius, 71 - radius, size)
    found = boundary_accuracy(prediction[None], truth[None], tolerance=radius)
    expected = dense_boundary_accuracy(prediction.numpy(), truth.numpy(), radius)
    assert 0 < expected < 1
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_void_and_later_objects_are_background():
    target = A.byte()[None].clone()
    expected = object_scores(target, target, 1)
    marked = target.clone()
    marked[:, 17:] = 255
    marked[:, :3] = 2
    assert all(torch.equal(a, b) for a, b in zip(object_scores(target, marked, 1), expected, strict=True))


@pytest.mark.parametrize("count", [15, 16, 40])
def test_any_number_of_objects_fits(count):
    ids = torch.arange(count + 1, dtype=torch.uint8).view(1, 1, -1)
    other = ids.clone()
    other[0, 0, 1] = 0
    expected = torch.ones(count, 1, dtype=torch.float64)
    expected[0] = 0
    assert torch.equal(object_scores(other, ids, count).region, expected)


def test_mistakes_are_named(no_type_checks):
    mask = A.byte()[None]
    with pytest.raises(ValueError, match=r"differ in size: \(1, 20, 30\) predicted, \(1, 19, 30\) true"):
        object_scores(mask, mask[:, 1:], 1)
    with pytest.raises(ValueError, match="object id 3, but there are 1 objects"):
        object_scores(3 * mask, mask, 1)
    with pytest.raises(ValueError, match=r"num_objects must be in \[1, 254\], got 0"):
        object_scores(mask, mask, 0)
    with pytest.raises(ValueError, match="no frames"):
        score_statistics(torch.zeros(2, 0))


# Scores of one object over frames, and their mean, recall and decay.
STATISTICS = [
    ([1 / (1 + t) for t in range(10)], (0.292897, 0.1, 0.499074)),
    ([1 / (1 + t) for t in range(7)], (0.370408, 0.142857, 0.456349)),
    ([0.5, 0.5001, 0.4, 0.9], (0.575025, 0.5, -0.149950)),
    ([0.8], (0.8, 1, 0)),
    ([0.8, 0.2], (0.5, 0.5, 0.6)),
    ([0.9, 0.6, 0.3], (0.6, 0.666667, 0.45)),
    ([0.9, math.nan, 0.3, 0.7, 0.1], (0.5, 0.4, 0.5)),
]


@pytest.mark.parametrize(("values", "expected"), STATISTICS)
def test_statistics_over_frames_are_the_official_ones(values, expected):
    found = torch.stack(score_statistics(torch.tensor([values], dtype=torch.float64)))[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_videos_of_more_than_256_frames_have_a_decay():
    assert float(score_decay(torch.linspace(1, 0, 300)[None])) == pytest.approx(0.75, abs=0.01)


def two_videos():
    """Truth and prediction of a video with one object and of one with two, of which the second is lost."""
    a, b = torch.zeros(2, 8, 24, 32, dtype=torch.uint8), torch.zeros(2, 8, 24, 32, dtype=torch.uint8)
    for t in range(8):
        a[0, t, 4:14, 3 + t : 13 + t] = 1
        a[1, t, 4:14, 3 + t + t // 2 : 13 + t + t // 2] = 1
        b[0, t, 2:10, 2 + t : 10 + t] = 1
        b[1, t, 2 + t % 3 : 10 + t % 3, 2 + t : 10 + t] = 1
        b[0, t][disc(16, 24 - t, 25, (24, 32))] = 2
        if t < 5:
            b[1, t][disc(16, 24 - t, 16, (24, 32))] = 2
    b[0, 4, 20:22, 0:5] = 255
    return [(a[1], a[0], 1), (b[1], b[0], 2)]


def test_two_videos_score_as_officially():
    (a, b) = (object_scores(pred[1:-1], true[1:-1], K) for pred, true, K in two_videos())
    J = [[1, 0.818182, 0.818182, 0.666667, 0.666667, 0.538462], [0.777778, 0.6, 1, 0.777778, 0.6, 1],
         [0.604938, 0.604938, 0.604938, 0.604938, 0, 0]]  # fmt: skip
    F = [[1, 1, 1, 0.55, 0.55, 0.5], [1, 0.5625, 1, 1, 0.5625, 1], [0.852071, 0.852071, 0.852071, 0.852071, 0, 0]]
    region, boundary = torch.cat([a.region, b.region]), torch.cat([a.boundary, b.boundary])
    torch.testing.assert_close(region, torch.tensor(J, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(boundary, torch.tensor(F, dtype=torch.float64), **EXACT)
    expected = [
        [[0.751360, 0.792593, 0.403292], [1, 1, 0.666667], [0.306527, -0.111111, 0.604938]],
        [[0.766667, 0.854167, 0.568047], [0.833333, 1, 0.666667], [0.475, 0, 0.852071]],
    ]
    for scores, values in zip((region, boundary), expected, strict=True):
        found = torch.stack(score_statistics(scores))
        torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float64), **EXACT)
    overall = [[f(scores) for f in (score_mean, score_recall, score_decay)] for scores in (region, boundary)]
    values = [[0.649082, 0.888889, 0.266785], [0.729627, 0.833333, 0.442357]]
    torch.testing.assert_close(torch.tensor(overall), torch.tensor(values), **EXACT)
    assert float(score_mean((region + boundary) / 2)) == pytest.approx(0.689354, abs=1e-6)


def masks(folder, size=None):
    files = [Image.open(path) for path in sorted(folder.glob("*.png"))]
    resized = [file if size is None else file.resize(size, Image.Resampling.NEAREST) for file in files]
    return torch.from_numpy(np.stack([np.asarray(file) for file in resized]))


def statistics_of(preds, target):
    scores = object_scores((preds > 0).byte(), (target > 0).byte(), 1)
    return [[round(float(value), 6) for value in score_statistics(values[:, 1:-1])] for values in scores]


def test_real_predictions_at_480p_score_as_officially(sample_data):
    """Expected: the README of the samples, computed with the official functions."""
    target = masks(sample_data / "vos/DAVIS/Annotations/480p/car-shadow")
    preds = masks(sample_data / "vos/results/semi-supervised/osvos/car-shadow")
    first = object_scores((preds[:1] > 0).byte(), (target[:1] > 0).byte(), 1)
    assert [round(float(values), 6) for values in first] == [0.970743, 0.996740]
    assert statistics_of(preds, target) == [[0.928402, 1, 0.110280], [0.917407, 1, 0.169749]]


def test_real_predictions_of_a_whole_sequence_score_as_officially(sample_data):
    target = masks(sample_data / "vos/propainter/bmx-trees_mask")
    preds = masks(sample_data / "vos/results/semi-supervised/osvos/bmx-trees", size=(432, 240))
    assert statistics_of(preds, target) == [[0.540848, 0.653846, 0.258321], [0.771148, 0.897436, 0.214780]]
    copied = statistics_of(target[:1].expand_as(target), target)
    assert [values[0] for values in copied] == [0.093625, 0.227953]

"""Video object segmentation: region similarity J and boundary accuracy F of masks, and their statistics over frames.

They equal those of the official tool (davisvideochallenge/davis2017-evaluation: davis2017/metrics.py, utils.py) to
rounding, but look only at the pixels on boundaries: nothing is dilated, and all objects and frames are done at once.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from omnistream.metrics.mean import SampleMean

BOUNDARY_TOLERANCE = 0.008
"""Share of the diagonal of a frame by which boundaries may be apart."""
_WORD = 8
"""Pixels that are looked at together when boundaries are searched."""
_SHIFT = 4
_STRIDE = 1 << _SHIFT
_LONGEST_RUN = 64 - _STRIDE + 1


class ObjectScores(NamedTuple):
    """J and F of every object in every frame, in [0, 1]; float64."""

    region: Float[Tensor, "K T"]
    """Region similarity J: intersection over union."""
    boundary: Float[Tensor, "K T"]
    """Boundary accuracy F: harmonic mean of the precision and recall of boundary pixels."""


def object_scores(
    preds: UInt8[Tensor, "T H W"],
    target: UInt8[Tensor, "T H W"],
    num_objects: int,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> ObjectScores:
    """J and F of every object of a video in every frame.

    An object that is in neither mask scores 1, one that is in a single mask 0. Borders of the frame are no boundary, so
    a mask of the whole frame has none.

    Args:
        preds: Masks of object ids; 0 is background.
        target: True masks; ids above `num_objects` and void (255) count as background.
        num_objects: Objects K, with the ids 1 to K.
        tolerance: How far boundaries may be apart: a share of the diagonal of the frame, rounded up to pixels, or
            pixels if at least 1.

    Raises:
        ValueError: If the sizes differ, or the prediction has other ids.
    """
    if preds.shape != target.shape:
        raise ValueError(f"masks differ in size: {tuple(preds.shape)} predicted, {tuple(target.shape)} true")
    if not 1 <= num_objects < 255:
        raise ValueError(f"num_objects must be in [1, 254], got {num_objects}")
    if preds.numel() and int(preds.max()) > num_objects:
        raise ValueError(f"a prediction has the object id {int(preds.max())}, but there are {num_objects} objects")
    if target.numel() and int(target.max()) > num_objects:
        target = target.masked_fill(target > num_objects, 0)
    H, W = target.shape[-2:]
    radius = int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(H, W))
    regions, pred_edges, true_edges = [], [], []
    for t, (top, bottom, left, right) in enumerate(_extents(preds, target)):
        pred, true = preds[t, top:bottom, left:right], target[t, top:bottom, left:right]
        regions.append(_region_scores(pred, true, num_objects))
        pred_edges.append(_boundary(pred, t, top, left))
        true_edges.append(_boundary(true, t, top, left))
    if not regions:
        empty = torch.zeros(num_objects, 0, dtype=torch.float64, device=target.device)
        return ObjectScores(empty, empty)
    edges = _joined(pred_edges), _joined(true_edges)
    return ObjectScores(torch.stack(regions, dim=1), _boundary_scores(*edges, target.shape, num_objects, radius))


def region_similarity(preds: Bool[Tensor, "T H W"], target: Bool[Tensor, "T H W"]) -> Float[Tensor, " T"]:
    """J of binary masks: intersection over union, 1 if both are empty."""
    return object_scores(preds.byte(), target.byte(), 1).region[0]


def boundary_accuracy(
    preds: Bool[Tensor, "T H W"], target: Bool[Tensor, "T H W"], tolerance: float = BOUNDARY_TOLERANCE
) -> Float[Tensor, " T"]:
    """F of binary masks; see `object_scores`."""
    return object_scores(preds.byte(), target.byte(), 1, tolerance).boundary[0]


def _extents(preds: UInt8[Tensor, "T H W"], target: UInt8[Tensor, "T H W"]) -> list[list[int]]:
    """Top, bottom, left and right of all objects in each frame, with a margin of one pixel within the frame."""
    bounds = []
    for dim in (2, 1):
        lines = (preds.amax(dim) | target.amax(dim)).bool().byte()  # [T, H] or [T, W]
        length = lines.shape[1]
        first, last = lines.argmax(1), length - 1 - lines.flip(1).argmax(1)
        bounds += [(first - 1).clamp_min(0), (last + 2).clamp_max(length)]
    return torch.stack(bounds, dim=1).tolist()


def _region_scores(pred: UInt8[Tensor, "H W"], true: UInt8[Tensor, "H W"], K: int) -> Float[Tensor, " K"]:
    size = K + 1
    pairs = true.to(torch.uint8 if size * size <= 256 else torch.int32) * size + pred
    counts = torch.bincount(pairs.flatten(), minlength=size * size).view(size, size).double()
    both = counts.diagonal()[1:]
    union = counts.sum(0)[1:] + counts.sum(1)[1:] - both
    return torch.where(union > 0, both / union.clamp_min(1), 1.0)


class _Points(NamedTuple):
    """Pixels, in the order of frames, rows and columns."""

    frame: Int64[Tensor, " P"]
    row: Int64[Tensor, " P"]
    column: Int64[Tensor, " P"]


class _Boundaries(NamedTuple):
    """Pixels whose right, lower or lower right neighbour has another id."""

    points: _Points
    ids: UInt8[Tensor, "4 P"]
    """Of the pixel and of these neighbours."""

    def of(self, k: int) -> _Points:
        """Boundary of one object: it has some but not all of the four ids."""
        own, right, below, diagonal = self.ids == k
        chosen = (own | right | below | diagonal).nonzero()[:, 0]
        return _Points(*(values[chosen] for values in self.points))


def _boundary(mask: UInt8[Tensor, "H W"], frame: int, top: int, left: int) -> _Boundaries:
    """All boundary pixels of a part of a frame with this corner, in the order of rows and columns."""
    W = mask.shape[1]
    found = mask.new_zeros(-(-mask.numel() // _WORD) * _WORD, dtype=torch.bool)
    differs = found[: mask.numel()].view(mask.shape)
    torch.ne(mask[:, 1:], mask[:, :-1], out=differs[:, :-1])
    differs[:-1] |= mask[1:] != mask[:-1]
    differs[:-1, :-1] |= mask[1:, 1:] != mask[:-1, :-1]
    words = found.view(torch.int64).nonzero()[:, 0]  # most are empty, which is eight times faster to see
    inside = found.view(-1, _WORD)[words].nonzero()
    place = words[inside[:, 0]] * _WORD + inside[:, 1]
    row = place // W
    column = place - row * W
    right, below = (column < W - 1).long(), (row < mask.shape[0] - 1).long() * W
    flat = mask.flatten()
    ids = torch.stack([flat[place + step] for step in (0, right, below, right + below)])
    return _Boundaries(_Points(torch.full_like(row, frame), row + top, column + left), ids)


def _joined(parts: list[_Boundaries]) -> _Boundaries:
    points = (torch.cat(values) for values in zip(*(part.points for part in parts), strict=True))
    return _Boundaries(_Points(*points), torch.cat([part.ids for part in parts], dim=1))


def _boundary_scores(
    every_pred: _Boundaries, every_true: _Boundaries, shape: tuple[int, ...], K: int, radius: int
) -> Float[Tensor, "K T"]:
    (T, H, W), scores = shape, []
    for k in range(1, K + 1):
        pred, true = every_pred.of(k), every_true.of(k)
        num_pred, num_true = pred.frame.bincount(minlength=T), true.frame.bincount(minlength=T)
        precision = _near(pred, true, (H, W), radius, T) / num_pred.clamp_min(1)
        recall = _near(true, pred, (H, W), radius, T) / num_true.clamp_min(1)
        # As in the official tool, of an object without boundary: both are 1 if the other has none either.
        precision = torch.where((num_pred == 0) & (num_true == 0), 1.0, precision)
        recall = torch.where((num_pred == 0) & (num_true == 0), 1.0, recall)
        total = precision + recall
        scores.append(torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-300), 0.0))
    return torch.stack(scores)


def _near(points: _Points, others: _Points, size: tuple[int, int], radius: int, T: int) -> Float[Tensor, " T"]:
    """How many of the points of each frame have one of the others within the radius.

    A disc is a stack of runs of pixels, one per row. The others are bits of words that overlap, one word of 64 pixels
    every 16 pixels, so that a run of up to 49 is a mask on one word. Points that are found need no further rows, so the
    nearest rows come first.
    """
    found = torch.zeros(T, dtype=torch.int64, device=points.row.device)
    height, words = size[0] + 2 * radius, (size[1] + 2 * radius) // _STRIDE + 64 // _STRIDE  # room for discs at borders
    bits = _bits(others, T, height, words, radius)
    frames, lines, columns = points.frame, points.frame * height + points.row + radius, points.column + radius
    for distance in range(radius + 1):
        half = math.isqrt(radius * radius - distance * distance)
        hit = torch.zeros_like(frames, dtype=torch.bool)
        for start in range(-half, half + 1, _LONGEST_RUN):
            run = (1 << min(_LONGEST_RUN, half + 1 - start)) - 1
            first = columns + start
            mask = run << (first & (_STRIDE - 1))
            place = lines * words + (first >> _SHIFT) + 64 // _STRIDE - 1
            for row in {distance, -distance}:
                hit |= (bits[place + row * words] & mask) != 0
        found += frames[hit].bincount(minlength=T)
        left = (~hit).nonzero()[:, 0]
        frames, lines, columns = frames[left], lines[left], columns[left]
    return found.double()


def _bits(points: _Points, T: int, height: int, words: int, radius: int) -> Int64[Tensor, " L"]:
    """Points as bits: word j of a line has the 64 columns from 16 (j - 3) on."""
    lines, columns = points.frame * height + points.row + radius, points.column + radius
    bits = torch.zeros(T * height * words, dtype=torch.int64, device=lines.device)
    last = lines * words + (columns >> _SHIFT) + 64 // _STRIDE - 1
    for back in range(64 // _STRIDE):
        bits.index_add_(0, last - back, 1 << ((columns & (_STRIDE - 1)) + back * _STRIDE))  # no pixel comes twice
    return bits


class ScoreStatistics(NamedTuple):
    """Statistics of scores over frames, one value per object; float64."""

    mean: Float[Tensor, " K"]
    recall: Float[Tensor, " K"]
    """Share of frames with a score above 0.5."""
    decay: Float[Tensor, " K"]
    """Mean of the first quarter of the frames less that of the last."""


def score_statistics(scores: Float[Tensor, "K T"]) -> ScoreStatistics:
    """Mean, recall and decay of the scores of objects over the frames that count.

    DAVIS leaves out the first frame, which is given, and the last. Quarters share the frame between them. A frame whose
    score is NaN is left out of means.

    Raises:
        ValueError: If there is no frame.
    """
    T = scores.shape[1]
    if T == 0:
        raise ValueError("there are no frames to take statistics of")
    scores = scores.double()
    # Half a frame is rounded up, as by the official tool, which adds 1e-10 before it rounds.
    cuts = [math.floor(1 + i * (T - 1) / 4 + 1e-10 + 0.5) - 1 for i in range(5)]
    first, last = scores[:, cuts[0] : cuts[1] + 1], scores[:, cuts[3] : cuts[4] + 1]
    recall = (scores > 0.5).double().mean(1)
    return ScoreStatistics(scores.nanmean(1), recall, first.nanmean(1) - last.nanmean(1))


def score_mean(scores: Float[Tensor, "K T"]) -> Float[Tensor, ""]:
    """Mean over objects of the mean score over frames: J-Mean or F-Mean of DAVIS. In [0, 1], higher is better."""
    return score_statistics(scores).mean.mean().float()


def score_recall(scores: Float[Tensor, "K T"]) -> Float[Tensor, ""]:
    """Mean over objects of the share of frames that score above 0.5. In [0, 1], higher is better."""
    return score_statistics(scores).recall.mean().float()


def score_decay(scores: Float[Tensor, "K T"]) -> Float[Tensor, ""]:
    """Mean over objects of how much the score falls from the first quarter to the last. Lower is better."""
    return score_statistics(scores).decay.mean().float()


class ScoreMean(SampleMean):
    """Mean over the objects of all videos of their mean score over frames; see `score_mean`."""

    higher_is_better = True

    def update(self, scores: Float[Tensor, "K T"]) -> None:
        """Add the scores of the objects of one video, such as those of `object_scores`."""
        self.add(score_statistics(scores).mean)


class ScoreRecall(SampleMean):
    """Mean over the objects of all videos of the share of frames that score above 0.5; see `score_recall`."""

    higher_is_better = True

    def update(self, scores: Float[Tensor, "K T"]) -> None:
        """Add the scores of the objects of one video."""
        self.add(score_statistics(scores).recall)


class ScoreDecay(SampleMean):
    """Mean over the objects of all videos of how much the score falls over time; see `score_decay`."""

    higher_is_better = False

    def update(self, scores: Float[Tensor, "K T"]) -> None:
        """Add the scores of the objects of one video."""
        self.add(score_statistics(scores).decay)

"""Depth of whole videos: one alignment per sequence and the errors after it, as CUT3R reports them (paper Table 3).

Pairs of predicted and true depth are kept as float32, and everything is computed from them in float64. A prediction
with a value that is not finite is a failure of the model: its errors are NaN and so is every mean that they enter.

Source: CUT3R/CUT3R eval/video_depth/tools.py, whose loops over frames of NumPy and PyTorch code this replaces.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from omnistream.metrics.depth_alignment import ScaleShift, SequenceAlignment, Sums, fit_alignments
from omnistream.metrics.pair_store import PairStore, add_up

VideoAlignment = Literal[SequenceAlignment, "frame_median"]
"""How a video is brought to the scale of the truth: as a whole, see `fit_alignments`, or frame by frame.

`frame_median` multiplies each frame by the ratio of its own medians, and the errors are then the mean over frames,
weighted by valid pixels: the protocol of single images (CUT3R eval/monodepth).
"""

MIN_LOG_DEPTH = 1e-5
"""Predictions are not smaller than this in logarithms and ratios."""
_CUBIC = -0.75
"""Slope of the cubic kernel at a distance of 1, as in OpenCV."""


class DepthErrors(NamedTuple):
    """Errors of one sequence, float64 scalars, or of each of its frames, [T]. Lower is better, but for the deltas."""

    abs_rel: Tensor
    """Mean of |p - t| / t."""
    sq_rel: Tensor
    """Mean of (p - t)^2 / t, in the unit of depth."""
    rmse: Tensor
    """Root mean square error, in the unit of depth."""
    log_rmse: Tensor
    """Root mean square error of natural logarithms."""
    delta1: Tensor
    """Share of pixels with max(p / t, t / p) < 1.25, the ratios in float32: that of 0.8 and 1 does not count."""
    delta2: Tensor
    """The same below 1.25^2."""
    delta3: Tensor
    """The same below 1.25^3."""


class SequenceDepth(NamedTuple):
    """Errors of one sequence after one alignment."""

    errors: DepthErrors
    """0 if nothing can be compared, NaN if a compared prediction is not finite."""
    scale: Tensor
    """Of the alignment; [T] for `frame_median`."""
    shift: Tensor
    """Of the alignment, in the unit of the truth."""
    num_valid: int
    """Pixels that were compared: the weight of this sequence in means over sequences."""
    frame_errors: DepthErrors
    """Of every frame after the same alignment, [T]; NaN where it has no valid pixel."""
    not_finite_frame: int | None
    """The first frame, counted from 0, of which a compared prediction is not finite."""


def resize_depth(preds: Float[Tensor, "T h w"], size: tuple[int, int]) -> Float32[Tensor, "T H W"]:
    """Depth maps at the size of the truth, by cubic interpolation without antialiasing (OpenCV's INTER_CUBIC).

    Args:
        preds: Depth maps.
        size: Height and width of the truth.
    """
    maps = preds.float()
    if maps.shape[-2:] == size:
        return maps
    base = maps[:, :1, :1].nan_to_num(0, 0, 0)  # a map of one value keeps it: that its weights sum up to 1 is rounded
    columns = _resize_first((maps - base).permute(2, 0, 1).contiguous(), size[1])
    return _resize_first(columns.permute(2, 1, 0).contiguous(), size[0]).permute(1, 0, 2) + base


def _resize_first(maps: Float32[Tensor, "n a b"], size: int) -> Float32[Tensor, "N a b"]:
    """Cubic interpolation along the first axis: each slice of the result is a weighted sum of four."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) * (len(maps) / size) - 0.5
    taps = position.floor()[:, None] + torch.arange(-1, 3)
    distance = (position[:, None] - taps).abs()
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance.square() + 1
    far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
    weights = near.where(distance <= 1, far).to(maps)
    rows = taps.long().clamp(0, len(maps) - 1).to(maps.device)
    return F.embedding_bag(rows, maps.flatten(1), per_sample_weights=weights, mode="sum").view(size, *maps.shape[1:])


class DepthPairs:
    """Predicted and true depth of a video, frame after frame, and their errors after any alignment.

    Only the valid pixels are kept: in memory up to a limit, beyond it in a temporary file of 8 bytes per pixel, 5 GB
    for 2,000 full frames of 640x480. To be closed, or used in a `with` statement.

    Args:
        max_depth: Only true depth below this is compared; 70 for Sintel and BONN, None for KITTI.
        memory_limit: Bytes of pairs in memory.
        folder: For the temporary file; by default the system's (`TMPDIR`).
    """

    def __init__(
        self, max_depth: float | None = None, memory_limit: int = 1 << 28, folder: Path | str | None = None
    ) -> None:
        self.max_depth = torch.inf if max_depth is None else max_depth
        self.not_finite_frame: int | None = None
        """The first frame so far of which a compared prediction is not finite."""
        self._store = PairStore(memory_limit, folder)

    @property
    def num_frames(self) -> int:
        """Frames so far."""
        return len(self._store.counts)

    @property
    def num_valid(self) -> int:
        """Compared pixels so far."""
        return sum(self._store.counts)

    def add(self, preds: Float[Tensor, "h w"], target: Float[Tensor, "H W"]) -> None:
        """Add the next frame.

        Args:
            preds: Depth along the optical axis, at any size.
            target: True depth; pixels that are not positive, not finite, or not below `max_depth` are not compared.
        """
        truth = target.detach().cpu()
        resized = resize_depth(preds.detach().cpu()[None], (truth.shape[-2], truth.shape[-1]))
        compared = (truth > 0) & (truth < self.max_depth)  # no NaN, no infinity
        valid = torch.from_numpy(np.flatnonzero(compared.numpy()))  # eight times as fast as torch's
        found, known = (maps.flatten().index_select(0, valid) for maps in (resized, truth))
        if self.not_finite_frame is None and not found.sum(dtype=torch.float64).isfinite():
            self.not_finite_frame = self.num_frames
        self._store.append(found, known)

    def errors(
        self, alignments: Sequence[VideoAlignment], clip_to: float | None = None
    ) -> dict[VideoAlignment, SequenceDepth]:
        """Errors of the frames so far after each alignment; all alignments share the passes over the pixels.

        Args:
            alignments: See `VideoAlignment`.
            clip_to: Largest aligned depth; 70 for Sintel, None for the others.

        Raises:
            ValueError: If there is no such alignment.
        """
        for alignment in alignments:
            if alignment not in get_args(VideoAlignment):
                known = ", ".join(get_args(VideoAlignment))
                raise ValueError(f"alignment must be one of {known}, got {alignment!r}")
        if not self.num_valid or self.not_finite_frame is not None:
            return {alignment: self._without_errors() for alignment in alignments}
        fits = self._fits(alignments)
        sums = self._frame_sums(fits, clip_to)
        return {name: self._found(name, fits[name], sums[name]) for name in alignments}

    def close(self) -> None:
        """Forget all frames."""
        self._store.close()

    def __enter__(self) -> "DepthPairs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _totals(self, sums: Sums) -> list[Tensor]:
        return add_up(found for _, found in self._store.sums(lambda _, p, t: sums(p, t)))

    def _fits(self, alignments: Sequence[VideoAlignment]) -> dict[VideoAlignment, ScaleShift]:
        """Scale and shift; [T] for `frame_median`."""
        whole = [cast(SequenceAlignment, name) for name in alignments if name != "frame_median"]
        fits: dict[VideoAlignment, ScaleShift] = dict(fit_alignments(self._totals, whole).items())
        if "frame_median" in alignments:
            fits["frame_median"] = self._frame_medians()
        return fits

    def _frame_medians(self) -> ScaleShift:
        scale = torch.full((self.num_frames,), torch.nan, dtype=torch.float64)
        for frame, p, t in self._store.groups():
            scale[frame] = t.median() / p.median()
        return ScaleShift(scale, torch.zeros_like(scale))

    def _frame_sums(
        self, fits: dict[VideoAlignment, ScaleShift], clip_to: float | None
    ) -> dict[VideoAlignment, Float64[Tensor, "T 7"]]:
        """Sums over the valid pixels of each frame, see `_error_sums`."""

        def sums(frame: int, p: Tensor, t: Tensor) -> list[Tensor]:
            found = []
            for fit in fits.values():
                scale, shift = (one[frame] if one.ndim else one for one in fit)
                aligned = (scale * p).add_(shift)
                found.append(_error_sums(aligned if clip_to is None else aligned.clamp_max_(clip_to), t))
            return found

        totals = {name: torch.zeros(self.num_frames, 7, dtype=torch.float64) for name in fits}
        for frame, found in self._store.sums(sums):
            for total, one in zip(totals.values(), found, strict=True):
                total[frame] += one
        return totals

    def _found(self, name: VideoAlignment, fit: ScaleShift, sums: Float64[Tensor, "T 7"]) -> SequenceDepth:
        counts = torch.tensor(self._store.counts, dtype=torch.float64)
        frames = _errors(sums / counts[:, None])
        if name == "frame_median":
            shares = counts / counts.sum()
            errors = DepthErrors(*[(shares * error.where(counts > 0, 0)).sum() for error in frames])
        else:
            errors = _errors(sums.sum(0) / counts.sum())
        return SequenceDepth(errors, fit.scale, fit.shift, self.num_valid, frames, None)

    def _without_errors(self) -> SequenceDepth:
        nothing = self.not_finite_frame is None
        value = torch.tensor(0.0 if nothing else torch.nan, dtype=torch.float64)
        frames = torch.full((self.num_frames,), torch.nan, dtype=torch.float64)
        fit = ScaleShift(value + 1, value)
        return SequenceDepth(
            DepthErrors(*[value] * 7), *fit, self.num_valid, DepthErrors(*[frames] * 7), self.not_finite_frame
        )


def sequence_depth_errors(
    preds: Float[Tensor, "T h w"],
    target: Float[Tensor, "T H W"],
    alignment: VideoAlignment = "scale",
    max_depth: float | None = None,
    clip_to: float | None = None,
) -> SequenceDepth:
    """Errors of the depth of one sequence, after one alignment over all its frames.

    Args:
        preds: Depth along the optical axis, at any size.
        target: True depth; pixels that are not positive, not finite, or not below `max_depth` are not compared.
        alignment: See `VideoAlignment`.
        max_depth: 70 for Sintel and BONN, None for KITTI.
        clip_to: Largest aligned depth; 70 for Sintel, None for the others.

    Returns:
        Errors of 0 and no valid pixels if nothing can be compared; NaN if a compared prediction is not finite.

    Raises:
        ValueError: If the numbers of frames differ.
    """
    if len(preds) != len(target):
        raise ValueError(f"there are {len(preds)} predicted depth maps for {len(target)} frames")
    with DepthPairs(max_depth) as pairs:
        for frame, truth in zip(preds, target, strict=True):
            pairs.add(frame, truth)
        return pairs.errors([alignment], clip_to)[alignment]


def _error_sums(p: Float64[Tensor, " N"], t: Float64[Tensor, " N"]) -> Float64[Tensor, " 7"]:
    """Sums over pixels of what `_errors` needs the means of.

    NumPy's logarithm and comparisons take a third of the time of torch's.
    """
    error = p - t
    relative = error / t
    ratio = p.clamp_min(MIN_LOG_DEPTH).div_(t)
    worst = torch.maximum(ratio, ratio.reciprocal()).float().numpy()
    within = [np.count_nonzero(worst < np.float32(1.25**power)) for power in (1, 2, 3)]
    logarithm = torch.from_numpy(np.log(ratio.numpy()))
    products = ((error, relative), (error, error), (logarithm, logarithm))
    sums = [(one * other).sum() for one, other in products]
    return torch.stack([relative.abs_().sum(), *sums, *torch.tensor(within, dtype=torch.float64)])


def _errors(means: Float64[Tensor, "*T 7"]) -> DepthErrors:
    abs_rel, sq_rel, square, log_square, *deltas = means.unbind(-1)
    return DepthErrors(abs_rel, sq_rel, square.sqrt(), log_square.sqrt(), *deltas)

"""Clips from the sequences of any scene reader."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int

from omnistream.data.batch import SceneClip, SceneFrame
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.media.errors import MediaReadError
from omnistream.data.sampling import SampleKey, sample_rng, sample_seed
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader
from omnistream.data.splits import Split, check_fraction_split
from omnistream.data.transforms import SceneTransform, seeded, stack_frames

_CLIP_SALT = 3


@dataclass(frozen=True)
class ClipSampling:
    """How training clips are drawn; the rule of CUT3R/CUT3R: src/dust3r/datasets/base/base_multiview_dataset.py."""

    num_frames: int = 16
    """Frames of a clip."""
    max_interval: int = 4
    """Longest step between neighbouring frames; less where the rest of the sequence is short."""
    video_prob: float = 1.0
    """Probability of a clip in order. 1 suits a causal model (CUT3R: 0.5)."""
    fix_interval_prob: float = 0.5
    """Probability that all steps of an ordered clip are equal."""
    block_shuffle: int | None = None
    """Unordered clips are shuffled within blocks of this many frames; None shuffles the whole clip."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.max_interval < 1 or (self.block_shuffle is not None and self.block_shuffle < 1):
            raise ValueError(f"expected num_frames, max_interval and block_shuffle from 1, got {self}")
        if not (0 <= self.video_prob <= 1 and 0 <= self.fix_interval_prob <= 1):
            raise ValueError(f"expected probabilities in [0, 1], got {self}")


class SceneClips(FileDataset[SceneClip]):
    """Clips of the sequences that a reader finds.

    Random clips, for training: one sample per frame that a clip can start from; the rest of the clip is drawn. Fixed
    clips, for evaluation: neighbouring runs of consecutive frames, the same in every epoch.

    Broken files are logged and another clip is read instead.

    Args:
        reader: The data set; its `split` is the authors' own.
        sampling: How random clips are drawn; its `num_frames` also applies to fixed clips.
        transform: Applied to the frames of a clip, such as `SceneCrop`; without one, all images must have one size.
        seed: Determines clips, what `transform` draws, replacements, and each sample's `seed`.
        split: For data without official splits: `val` holds out the end of every sequence, `train` has the rest; null
            takes whole sequences.
        val_fraction: Held-out fraction of every sequence.
        fixed: Fixed clips instead of random ones; by default for `val` and `test`, of the reader or of this class.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If no sequence is found, or none is long enough for a clip.
        TooManyBrokenFilesError: If more sequences cannot be opened than allowed.
        ValueError: If an argument is out of range, or the reader does not know the cameras of all frames.
    """

    collate = staticmethod(SceneClip.collate)

    def __init__(
        self,
        reader: SceneReader,
        sampling: ClipSampling | None = None,
        transform: SceneTransform | None = None,
        seed: int = 0,
        *,
        split: Split | None = None,
        val_fraction: float = 0.2,
        fixed: bool | None = None,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(seed, broken_files)
        check_fraction_split(split)
        if not reader.has_all_cameras:
            raise ValueError(
                f"{type(reader).__name__} of {reader.root} has frames without intrinsics or pose, which clips need: it "
                "is for evaluations, as the reader of `GeometryVideos`"
            )
        if split is not None and reader.split is not None:
            raise ValueError(f"the reader gives the official {reader.split} split; leave `split` of the clips null")
        if not 0 < val_fraction < 1:
            raise ValueError(f"expected a val_fraction in (0, 1), got {val_fraction}")
        self.reader, self.sampling, self.transform = reader, sampling or ClipSampling(), transform
        self.fixed = (reader.split or split) in ("val", "test") if fixed is None else fixed
        self.sequences = reader.index()
        self._parts = [_part(sequence.num_frames, split, val_fraction) for sequence in self.sequences]
        self._ends = np.cumsum([len(self._starts(part)) for part in self._parts])
        if not len(self):
            longest, where = max(map(len, self._parts)), f"the {split} part of a sequence" if split else "a sequence"
            raise DatasetNotFoundError(
                f"{reader.root}: no clip of {self.sampling.num_frames} frames fits {where}; the longest has {longest}. "
                "Lower `sampling.num_frames`, or set `root` to longer sequences"
            )
        for path, reason in reader.broken:
            self.broken_files.add(MediaReadError(path, reason), self.num_files)

    def _starts(self, part: range) -> range:
        num_frames = self.sampling.num_frames
        return part[: max(0, len(part) - num_frames + 1) : num_frames if self.fixed else 1]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def num_files(self) -> int:
        """An image and a depth map per frame."""
        return 2 * sum(map(len, self._parts))

    def _read(self, key: SampleKey) -> SceneClip:
        key = SampleKey(0, key.index) if self.fixed else key
        number = int(np.searchsorted(self._ends, key.index, side="right"))
        sequence, part = self.sequences[number], self._parts[number]
        start = self._starts(part)[key.index - int(self._ends[number])]  # counted from the end, hence negative
        if self.fixed:
            positions, is_ordered = np.arange(start, start + self.sampling.num_frames), True
        else:
            sampling = self.sampling if sequence.is_video else replace(self.sampling, video_prob=0.0)
            offsets, is_ordered = sample_positions(
                len(part), start - part.start, sampling, sample_rng(self.seed, key, _CLIP_SALT)
            )
            positions = part.start + offsets
        frames = self.reader.read(sequence, positions.tolist())
        self._check_cameras(sequence, positions.tolist(), frames)
        seed = sample_seed(self.seed, key)
        if self.transform is not None:
            with seeded(seed):
                frames = self.transform(frames)
        first, last = (sequence.frames[int(position)] for position in (positions[0], positions[-1]))
        return SceneClip(
            **stack_frames(frames),
            is_metric=torch.tensor(sequence.is_metric),
            is_video=torch.tensor(sequence.is_video and is_ordered),
            name=f"{(self.reader.root / sequence.name).as_posix()}:{first}..{last}",
            seed=seed,
        )

    def _check_cameras(self, sequence: SceneSequence, positions: Sequence[int], frames: Sequence[SceneFrame]) -> None:
        for position, frame in zip(positions, frames, strict=True):
            if not (frame.intrinsics.isfinite().all() and frame.camera_to_world.isfinite().all()):
                path = self.reader.root / sequence.name
                raise MediaReadError(path, f"frame {sequence.frames[position]} has no intrinsics or no pose")


def _part(num_frames: int, split: Split | None, val_fraction: float) -> range:
    """Positions of the frames of a sequence that belong to a split by fraction."""
    cut = num_frames - round(num_frames * val_fraction)
    return {None: range(num_frames), "train": range(cut), "val": range(cut, num_frames)}[split]


def sample_positions(
    total: int, start: int, sampling: ClipSampling, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " T"], bool]:
    """Positions of a clip that begins at `start`, all different, and whether they are in order.

    Steps are drawn from 1 to the smaller of `max_interval` and twice the mean step that would just fit; positions past
    the end are replaced by unused ones after the start. If exactly `num_frames` are left, they are the clip.

    Args:
        total: Frames of the sequence.
        start: First frame that may be used; the first of the clip if it is ordered.
        sampling: The rule.
        rng: Source of all choices.

    Raises:
        ValueError: If fewer than `num_frames` frames follow.
    """
    steps = sampling.num_frames - 1
    remaining = total - 1 - start
    if start < 0 or remaining < steps:
        raise ValueError(f"expected {steps + 1} frames from position {start}, the sequence has {total}")
    if steps == 0 or remaining == steps:
        return np.arange(start, start + steps + 1), True
    cap = min(sampling.max_interval, 2 * remaining // steps)
    is_video = bool(rng.random() < sampling.video_prob)
    if is_video and rng.random() < sampling.fix_interval_prob:
        intervals = np.full(steps, rng.integers(1, min(cap, remaining // steps) + 1))
    else:
        intervals = rng.integers(1, cap + 1, steps)
    positions = _inside(start + np.concatenate([[0], np.cumsum(intervals)]), start, total, rng)
    if is_video:
        return np.sort(positions), True
    return _shuffled(positions, sampling.block_shuffle, rng), False


def _inside(positions: np.ndarray, start: int, total: int, rng: np.random.Generator) -> np.ndarray:
    kept = positions[positions < total]
    unused = np.setdiff1d(np.arange(start, total), kept)
    return np.concatenate([kept, rng.choice(unused, len(positions) - len(kept), replace=False)])


def _shuffled(positions: np.ndarray, block: int | None, rng: np.random.Generator) -> np.ndarray:
    size = block or len(positions)
    return np.concatenate([rng.permutation(positions[i : i + size]) for i in range(0, len(positions), size)])

"""Clips with exact geometry from recorded sequences; one subclass per file layout."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnistream.data.batch import SceneClip
from omnistream.data.files import Split, existing_folder
from omnistream.data.media.errors import DepthReadError, ImageReadError
from omnistream.data.media.image import read_image
from omnistream.data.quarantine import NothingUsableError, Quarantine
from omnistream.data.resampling import ResamplingDataset
from omnistream.data.sampling import SampleKey, sample_rng, sample_seed
from omnistream.data.scenes.clip_sampling import ClipSampling, sample_positions
from omnistream.data.scenes.sequence import SceneSequence
from omnistream.data.scenes.transform import apply_to_depth, apply_to_image, apply_to_intrinsics, plan_crop

_CLIP_SALT = 3


class SceneDataset(ResamplingDataset[SceneClip]):
    """Clips from the sequences found below a folder.

    The training part has one sample per frame a clip can start from; the rest of the clip is drawn. The held-out part
    is the end of every sequence, cut into neighbouring clips of consecutive frames that are the same in every epoch.
    Broken files are recorded and another clip is read instead.

    Args:
        root: Folder that holds sequences at any depth.
        size: Height and width of the frames in pixels, or one number for both.
        sampling: How training clips are drawn; its `num_frames` holds for both parts.
        split: `train` takes the first part of every sequence, `val` the last; `all` draws clips from the whole.
        val_fraction: Held-out part of every sequence.
        enlarge: In the training part, cut clips from frames scaled to cover up to so many pixels more (CUT3R: 15).
        seed: Determines clips, replacements, and each sample's `seed`.
        quarantine: Records broken files; by default up to 20 % of them are skipped.

    Raises:
        NothingUsableError: If no sequence is found, or none is long enough for a clip.
        MediaReadError: If a camera file is broken.
        ValueError: If an argument is out of range.
    """

    collate = staticmethod(SceneClip.collate)

    def __init__(
        self,
        root: str | Path,
        *,
        size: int | tuple[int, int],
        sampling: ClipSampling | None = None,
        split: Split = "train",
        val_fraction: float = 0.2,
        enlarge: int = 0,
        seed: int = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(seed, quarantine)
        self.root = existing_folder(root)
        self.size = (size, size) if isinstance(size, int) else size
        self.sampling = sampling or ClipSampling()
        self.split, self.enlarge = split, enlarge
        if min(self.size) < 1 or enlarge < 0:
            raise ValueError(f"expected a positive size and enlarge from 0, got {self.size} and {enlarge}")
        found = self.find_sequences(self.root)
        if not found:
            raise NothingUsableError(f"{self.root} holds no sequence; looked for {self.looked_for}")
        self.sequences = [split_sequence(sequence, split, val_fraction) for sequence in found]
        self._clips = [(s, start) for s, sequence in enumerate(self.sequences) for start in self._starts(len(sequence))]
        if not self._clips:
            longest = max(len(sequence) for sequence in self.sequences)
            raise NothingUsableError(
                f"{self.root}: no clip of {self.sampling.num_frames} frames fits the {split} part of a sequence; "
                f"the longest has {longest}"
            )

    looked_for: str
    """The layout in words, for the error that nothing was found."""

    @staticmethod
    @abstractmethod
    def find_sequences(root: Path) -> list[SceneSequence]:
        """All sequences of this layout at any depth below a folder, sorted by path; nothing is decoded."""

    def _starts(self, num_frames: int) -> range:
        return range(0, num_frames - self.sampling.num_frames + 1, self.sampling.num_frames if self._is_held_out else 1)

    @property
    def _is_held_out(self) -> bool:
        return self.split == "val"

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def num_files(self) -> int:
        """A picture and a depth map per frame."""
        return 2 * sum(len(sequence) for sequence in self.sequences)

    def _read(self, key: SampleKey) -> SceneClip:
        key = SampleKey(0, key.index) if self._is_held_out else key
        number, start = self._clips[key.index]
        rng = sample_rng(self.seed, key, _CLIP_SALT)
        sequence = self.sequences[number]
        if self._is_held_out:
            positions, is_video = np.arange(start, start + self.sampling.num_frames), True
        else:
            positions, is_video = sample_positions(len(sequence), start, self.sampling, rng)
        enlarge = 0 if self._is_held_out else int(rng.integers(self.enlarge + 1))
        clip = sequence.take(positions)
        frames = [self._frame(clip, position, enlarge) for position in range(len(clip))]
        images, depth, intrinsics = (torch.stack(column) for column in zip(*frames, strict=True))
        return SceneClip(
            images=images,
            depth=depth,
            valid=depth > 0,
            intrinsics=intrinsics,
            camera_to_world=torch.from_numpy(clip.camera_to_world).float(),
            is_metric=torch.tensor(sequence.is_metric),
            is_video=torch.tensor(is_video),
            name=f"{sequence.name}:{clip.images[0].name}..{clip.images[-1].name}",
            seed=sample_seed(self.seed, key),
        )

    def _frame(self, clip: SceneSequence, position: int, enlarge: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image, depth and K of one frame in the final size."""
        image = read_image(clip.images[position])
        depth = clip.read_depth(clip.depths[position])
        stored = (image.shape[1], image.shape[2])
        if tuple(depth.shape) != stored:
            raise DepthReadError(clip.depths[position], f"is {tuple(depth.shape)}, its picture {stored}")
        if min(stored) < 2:
            raise ImageReadError(clip.images[position], f"is only {stored} pixels large")
        intrinsics = torch.from_numpy(clip.intrinsics[position]).float()
        plan = plan_crop(stored, intrinsics, self.size, enlarge)
        return apply_to_image(plan, image), apply_to_depth(plan, depth), apply_to_intrinsics(plan, intrinsics)


def split_sequence(sequence: SceneSequence, split: Split, val_fraction: float) -> SceneSequence:
    """The first part of a sequence for training, the last `val_fraction` of its frames held out, or all of it.

    Raises:
        ValueError: If the split is unknown or the fraction not in (0, 1).
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"expected a val_fraction in (0, 1), got {val_fraction}")
    cut = len(sequence) - round(len(sequence) * val_fraction)
    parts = {"all": range(len(sequence)), "train": range(cut), "val": range(cut, len(sequence))}
    if split not in parts:
        raise ValueError(f"expected split all, train or val, got {split!r}")
    return sequence.take(parts[split])

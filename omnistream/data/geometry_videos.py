"""Videos with true depth and cameras, read frame by frame, for models that see one frame after the other."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from omnistream.cameras import crop_intrinsics, resize_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader


@dataclass(frozen=True, kw_only=True)
class FrameChoice:
    """Which frames of a sequence are shown to the model: `frames[start:stop:stride][:count]`."""

    start: int = 0
    stop: int | None = None
    stride: int = 1
    count: int | None = None

    def __post_init__(self) -> None:
        at_least_one = [self.stride, *(limit for limit in (self.stop, self.count) if limit is not None)]
        if self.start < 0 or min(at_least_one) < 1:
            raise ValueError(f"expected start >= 0 and stop, stride and count >= 1, got {self}")

    def positions(self, num_frames: int) -> range:
        """Positions in a sequence of this length."""
        return range(num_frames)[self.start : self.stop : self.stride][: self.count]


@dataclass(frozen=True, kw_only=True)
class ModelImages:
    """How CUT3R's evaluations bring an image to the size that the model sees.

    The longer side becomes `long_side`, by Lanczos resampling or, where that enlarges, bicubic. Both sides then become
    the multiple of `multiple` below: by another Lanczos resize (`resize`, for depth) or by cutting off the borders
    (`crop`, for poses). An image that is square after the first step becomes 4:3.

    Source: CUT3R/CUT3R src/dust3r/utils/image.py (load_images_for_eval).
    """

    long_side: int = 512
    multiple: int = 16
    fit: Literal["resize", "crop"] = "resize"

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.long_side < self.multiple:
            raise ValueError(f"expected long_side >= multiple >= 1, got {self}")
        if self.fit not in ("resize", "crop"):
            raise ValueError(f"fit must be resize or crop, got {self.fit!r}")

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width after the first step and after the second.

        Raises:
            ValueError: If borders are to be cut off a side that is shorter than `multiple`.
        """
        longest = max(height, width)
        first = round(height * self.long_side / longest), round(width * self.long_side / longest)
        rows, columns = (max(1, side // self.multiple) * self.multiple for side in first)
        if self.fit == "crop" and min(first) < self.multiple:
            raise ValueError(
                f"images: {width}x{height} pixels become {first[1]}x{first[0]}, which cannot be cut to a multiple of "
                f"{self.multiple}; set long_side larger, or fit to resize"
            )
        if first[0] == first[1]:
            rows = max(1, 3 * rows // 4 // self.multiple) * self.multiple
        return first, (rows, columns)

    def __call__(self, frame: SceneFrame) -> SceneFrame:
        """The frame with its image and intrinsics changed; depth stays as stored."""
        first, last = self.sizes(*frame.size)
        enlarges = max(first) > max(frame.size)
        image = _resize(frame.image, first, Image.Resampling.BICUBIC if enlarges else Image.Resampling.LANCZOS)
        intrinsics = resize_intrinsics(frame.intrinsics, frame.size, first)
        if self.fit == "resize":
            image = _resize(image, last, Image.Resampling.LANCZOS)
            intrinsics = resize_intrinsics(intrinsics, first, last)
        else:
            top, left = (first[0] - last[0]) // 2, (first[1] - last[1]) // 2
            image = image[:, top : top + last[0], left : left + last[1]].contiguous()
            intrinsics = crop_intrinsics(intrinsics, top, left)
        depth_intrinsics = frame.depth_intrinsics
        if depth_intrinsics is None and frame.depth is not None:
            size = frame.depth.shape[-2], frame.depth.shape[-1]
            depth_intrinsics = resize_intrinsics(frame.intrinsics, frame.size, size)
        return replace(frame, image=image, intrinsics=intrinsics, depth_intrinsics=depth_intrinsics)


def _resize(image: UInt8[Tensor, "3 H W"], size: tuple[int, int], how: Image.Resampling) -> UInt8[Tensor, "3 h w"]:
    if image.shape[-2:] == size:
        return image
    resized: Tensor = pil_to_tensor(to_pil_image(image).resize((size[1], size[0]), how))
    return resized


@dataclass(frozen=True, kw_only=True)
class GeometryVideo:
    """One video of an evaluation, of which nothing is decoded yet."""

    name: str
    reader: SceneReader
    sequence: SceneSequence
    positions: range
    """Of its frames in the sequence."""
    images: ModelImages | None

    def __len__(self) -> int:
        return len(self.positions)

    def settings(self) -> dict[str, Any]:
        """Which frames these are, as plain values: equal ones are equal frames as long as no file is replaced."""
        return {
            "reader": type(self.reader).__name__,
            "options": list(self.reader.index_options()),
            "sequence": self.sequence.name,
            "frames": [self.sequence.frames[position] for position in self.positions],
            "images": self.images and asdict(self.images),
        }

    def frames(self, with_depth: bool = True) -> Iterator[SceneFrame]:
        """The frames in order: images of the model's size, depth as stored with its own `depth_intrinsics`.

        The next frame is read while the caller works on one, and no other frame is kept.

        Args:
            with_depth: Whether depth is needed; otherwise as `SceneReader.read_without_depth`.

        Raises:
            MediaReadError: If a file is broken.
        """
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for position in self.positions:
                upcoming = pool.submit(self._read, position, with_depth)
                if waiting is not None:
                    yield waiting.result()
                waiting = upcoming
            if waiting is not None:
                yield waiting.result()

    def _read(self, position: int, with_depth: bool) -> SceneFrame:
        read = self.reader.read if with_depth else self.reader.read_without_depth
        frame = read(self.sequence, [position])[0]
        return frame if self.images is None else self.images(frame)


class GeometryVideos(Dataset[GeometryVideo]):
    """The videos of one benchmark: which sequences of a reader, which of their frames, and at which size.

    Args:
        reader: Of the data set.
        sequences: Published names of the sequences (`SceneReader.published_name`), or the name of one of the reader's
            `sequence_lists`; all by default.
        frames: Which frames of each.
        images: Size of the images that the model sees; None for that of the files.

    Raises:
        DatasetNotFoundError: If none of the sequences is there.
        ValueError: If the reader has no such list, `sequences` names one twice, or two sequences are called the same.
    """

    def __init__(
        self,
        reader: SceneReader,
        sequences: str | Sequence[str] | None = None,
        frames: FrameChoice = FrameChoice(),
        images: ModelImages | None = ModelImages(),
    ) -> None:
        self.reader, self.frames, self.images = reader, frames, images
        self.list_name = sequences if isinstance(sequences, str) else None
        """Of the published list."""
        self.picked = bool(sequences) and self.list_name is None
        """Whether the sequences were named one by one."""
        found = _by_published_name(reader)
        self.names = _names(reader, sequences) or [*found, *(path for path, _ in reader.broken)]
        """Of all sequences of the benchmark, also of those that are not there."""
        self.missing_names = [name for name in self.names if name not in found]
        """Sequences of the benchmark without files that can be read."""
        self._found = [name for name in self.names if name in found]
        self.sequences = [found[name] for name in self._found]
        if not self.sequences:
            raise DatasetNotFoundError(
                f"{reader.root} has none of the sequences {', '.join(self.names[:5])}"
                f"{' ...' if len(self.names) > 5 else ''}; it has {', '.join(list(found)[:5])}",
                reader.expected,
            )

    @property
    def missing(self) -> int:
        """Number of sequences without files that can be read."""
        return len(self.missing_names)

    def settings(self) -> dict[str, Any]:
        """What was chosen, as plain values for `results.json`."""
        return {
            "reader": type(self.reader).__name__,
            "options": list(self.reader.index_options()),
            "list": self.list_name,
            "picked": self.names if self.picked else None,
            "num_sequences": len(self.sequences),
            "missing_sequences": self.missing_names,
            "broken": [f"{path}: {reason}" for path, reason in self.reader.broken],
            "frames": asdict(self.frames),
            "images": self.images and asdict(self.images),
        }

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> GeometryVideo:
        """The video of an index; its frames are read when they are asked for."""
        sequence = self.sequences[index]
        positions = self.frames.positions(sequence.num_frames)
        options = {"reader": self.reader, "sequence": sequence, "positions": positions, "images": self.images}
        return GeometryVideo(name=self._found[index], **options)  # type: ignore[arg-type]

    @staticmethod
    def collate(samples: list[GeometryVideo]) -> list[GeometryVideo]:
        """Videos differ in length and size: a batch is a list."""
        return samples


def _by_published_name(reader: SceneReader) -> dict[str, SceneSequence]:
    found: dict[str, SceneSequence] = {}
    for sequence in reader.index():
        if (other := found.setdefault(name := reader.published_name(sequence.name), sequence)) is not sequence:
            raise ValueError(
                f"{reader.root} holds two sequences called {name}: {other.name} and {sequence.name}; set `root` to the "
                "folder of one of them"
            )
    return found


def _names(reader: SceneReader, sequences: str | Sequence[str] | None) -> list[str]:
    if not isinstance(sequences, str):
        names = [reader.published_name(name) for name in sequences or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"sequences: {twice} is named more than once, and would count as often; name it once")
        return names
    if sequences not in reader.sequence_lists:
        known = ", ".join(reader.sequence_lists) or "none"
        raise ValueError(f"sequences: {type(reader).__name__} has no list {sequences!r}; it has {known}")
    return list(reader.sequence_lists[sequences])

"""What samples and batches look like; the contract between data sets, tasks and plots.

A sample and a batch of it are the same class: a batch has one leading axis more in every tensor field and lists in the
others. Workers hand over uint8 images; the task normalises and distorts them on the device.

Letters: B batch, T frames, H W pixels, G global and L local views, h w patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from omnistream.boxes import Box

# Not `Self`: the shape checks of the tests decorate single methods, where beartype refuses it.
BatchT = TypeVar("BatchT", bound="Batch")


@dataclass(kw_only=True)
class Batch:
    """Base of all samples and batches: moves and pins its tensors, leaves everything else alone.

    Attributes:
        index: Position in the data set, where it is read in order for evaluation; a list in a batch.
    """

    index: int | list[int] | None = None

    host_fields: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Tensors that the host reads within a training step: they stay there, as reading them back would wait."""

    def _map(self: BatchT, function: Callable[[Tensor], Tensor]) -> BatchT:
        changed = {f.name: function(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **changed)  # type: ignore[arg-type]  # its fields are not known here

    def to(self: BatchT, *args: object, **kwargs: object) -> BatchT:
        """The same batch with its tensors moved as by `Tensor.to`, but for `host_fields`; Lightning calls this.

        Copies to an accelerator are queued, not waited for; whatever uses them there comes after them.
        """
        device = args[0] if args else kwargs.get("device")
        if isinstance(device, torch.device) and device.type not in ("cpu", "mps"):
            kwargs = {"non_blocking": True, **kwargs}
        moved = self._map(lambda value: value.to(*args, **kwargs))  # type: ignore[call-overload]
        return replace(moved, **{name: getattr(self, name) for name in self.host_fields if hasattr(self, name)})

    def pin_memory(self: BatchT) -> BatchT:
        """The same batch in page-locked memory; called by the data loader."""
        return self._map(lambda value: value.pin_memory())

    @classmethod
    def collate(cls: type[BatchT], samples: Sequence[BatchT]) -> BatchT:
        """Stack samples: tensors along a new first axis, everything else into lists.

        The samples' own class decides the fields, so `Batch.collate` serves every data set.

        Raises:
            ValueError: If tensors of one field differ in shape; says which field and shapes.
            TypeError: If the samples are not all of one class that derives from this one.
        """
        if not samples:
            raise ValueError(f"{cls.__name__}.collate: needs at least one sample")
        kind = type(samples[0])
        kinds = {type(sample) for sample in samples}
        if len(kinds) > 1 or not issubclass(kind, cls):
            names = ", ".join(sorted(each.__name__ for each in kinds))
            raise TypeError(
                f"{cls.__name__}.collate: samples must be of one class derived from {cls.__name__}, got {names}"
            )
        values: dict[str, Any] = {}
        for field in fields(kind):
            column = [getattr(sample, field.name) for sample in samples]
            if isinstance(column[0], Tensor):
                shapes = {tuple(value.shape) for value in column}
                if len(shapes) > 1:
                    raise ValueError(f"{kind.__name__}.{field.name}: samples of one batch differ in shape: {shapes}")
                values[field.name] = torch.stack(column)
            elif column[0] is None:
                values[field.name] = None
            else:
                values[field.name] = column
        return kind(**values)


@dataclass(kw_only=True)
class FrameClip(Batch):
    """An image (T=1) or a video clip with its label.

    Attributes:
        images: uint8 [T, 3, H, W]; a batch has [B, T, 3, H, W].
        label: int64 scalar; -1 where there is none.
        name: Where it came from; a list in a batch.
        seed: int64 scalar that every later random choice about this sample derives from.
    """

    images: Tensor
    label: Tensor
    name: str | list[str]
    seed: Tensor


@dataclass(kw_only=True)
class LabelledImage(Batch):
    """An image with a class for every pixel.

    Attributes:
        images: uint8 [1, 3, H, W]; a batch has [B, 1, 3, H, W].
        labels: uint8 [h, w], classes from 0, 255 where a pixel has none; in evaluation in the size of the file, which
            need not be that of the image.
        name: Where it came from; a list in a batch.
        seed: int64 scalar that every later random choice about this sample derives from.
    """

    images: Tensor
    labels: Tensor
    name: str | list[str]
    seed: Tensor


@dataclass(kw_only=True)
class DepthImage(Batch):
    """An image with the depth of its pixels.

    Attributes:
        image: uint8 [3, H, W].
        depth: float32 [H, W], metres; 0 where nothing was measured.
        name: Where it came from; a list in a batch.
        seed: int64 scalar that every later random choice about this sample derives from.
    """

    image: Tensor
    depth: Tensor
    name: str | list[str]
    seed: Tensor


@dataclass(kw_only=True)
class MaskedVideo(Batch):
    """A whole video with the masks of its objects.

    Attributes:
        images: uint8 [T, 3, H, W].
        masks: uint8 [T, h, w] in their own size: 0 is background, the objects are 1 to `num_objects`.
        num_objects: Highest id in the first frame; a list in a batch.
        name: Of the video; a list in a batch.
        frame_names: Of its frames; a list of lists in a batch.
    """

    images: Tensor
    masks: Tensor
    num_objects: int | list[int]
    name: str | list[str]
    frame_names: list[str] | list[list[str]]


@dataclass(frozen=True, kw_only=True)
class SceneFrame:
    """One frame with geometry, as stored: image and depth may differ in size.

    Attributes:
        image: uint8 [3, H, W].
        depth: float32 [h, w], z-depth (along the optical axis) in the units of the scene; None where there is none.
        valid: bool [h, w]; by default where depth is finite and positive.
        intrinsics: [3, 3] of the image in pixels; pixel i has its centre at i + 0.5. NaN where unknown.
        camera_to_world: [4, 4], OpenCV axes (x right, y down, z forward), in the units of the scene. NaN where unknown.
        depth_intrinsics: [3, 3] of the depth map, if it is not the image's camera at another resolution; its optical
            centre and axes are the image's.
    """

    image: Tensor
    depth: Tensor | None
    valid: Tensor | None = None
    intrinsics: Tensor
    camera_to_world: Tensor
    depth_intrinsics: Tensor | None = None

    def __post_init__(self) -> None:
        if self.depth is not None and self.valid is None:
            object.__setattr__(self, "valid", self.depth.isfinite() & (self.depth > 0))
        shapes = [None if value is None else tuple(value.shape) for value in (self.depth, self.valid)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"depth and valid of one frame differ in shape: {shapes[0]} and {shapes[1]}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(kw_only=True)
class SceneClip(Batch):
    """A clip with depth and cameras.

    Attributes:
        images: uint8 [T, 3, H, W].
        depth: float32 [T, H, W], z-depth (along the optical axis); metres where `is_metric`, 0 where invalid.
        valid: bool [T, H, W].
        intrinsics: float32 [T, 3, 3], pixels; pixel i has its centre at i + 0.5.
        camera_to_world: float32 [T, 4, 4], OpenCV axes (x right, y down, z forward).
        is_metric: bool scalar.
        is_video: bool scalar; False for unordered views.
        name: Where it came from; a list in a batch.
        seed: int64 scalar that every later random choice about this sample derives from.
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    intrinsics: Tensor
    camera_to_world: Tensor
    is_metric: Tensor
    is_video: Tensor
    name: str | list[str]
    seed: Tensor


@dataclass(kw_only=True)
class ViewBatch(Batch):
    """Crops of images (T=1) or clips for self-supervision; also the sample, without the B axis.

    Attributes:
        global_crops: uint8 [B, G, T, 3, S, S]; not yet distorted.
        local_crops: uint8 [B, L, T, 3, s, s].
        masks: bool [B, G, T, h, w], True where the student sees the mask token.
        seed: int64 [B].
        name: Where the samples came from.
    """

    host_fields = frozenset({"seed", "masks"})

    global_crops: Tensor
    local_crops: Tensor
    masks: Tensor | None = None
    seed: Tensor
    name: str | list[str]


class Region(NamedTuple):
    """A box with its text: a written word, or the phrase that refers to the thing in the box."""

    text: str
    box: Box
    """In [0, 1], relative to the image as the model sees it."""


class TextTarget(NamedTuple):
    """What is to be said about an image or clip; `tasks.captioning.prompts` words it.

    `caption`: `text` is the caption. `ocr`: `regions` are the words. `grounding`: `text` is the phrase, `regions` its
    boxes. `region`: `regions[0].box` is asked for, `text` is the answer.
    """

    task: Literal["caption", "ocr", "grounding", "region"]
    text: str
    regions: tuple[Region, ...] = ()


@dataclass(kw_only=True)
class CaptionClip(Batch):
    """An image or clip with something to say about it.

    Attributes:
        images: uint8 [T, 3, H, W].
        target: The text side; a list in a batch.
        name: Where it came from; a list in a batch.
        seed: int64 scalar (chooses among the paraphrased instructions).
    """

    images: Tensor
    target: TextTarget | list[TextTarget]
    name: str | list[str]
    seed: Tensor

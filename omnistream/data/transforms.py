"""Transforms of samples: what `transform=` of a data set takes, and the square crops that most runs use.

Images, videos and captions take any transform of an image tensor uint8 [T, 3, H, W], such as those of
`torchvision.transforms.v2`; an image has T = 1. Scenes take a transform of a list of `SceneFrame`, because depth and
camera change with the image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from omnistream.cameras import crop_intrinsics, resize_intrinsics
from omnistream.data.batch import SceneClip, SceneFrame
from omnistream.data.media.resize import resize_images

ImageTransform: TypeAlias = Callable[[Tensor], Tensor]
"""uint8 [T, 3, H, W] to the same with another size or other colours."""

PairTransform: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""An image and its depth or classes to the same with other sizes or colours; see `transform_pair`."""

SceneTransform: TypeAlias = Callable[[list[SceneFrame]], list[SceneFrame]]
"""The frames of a clip to the same with another size or other colours."""


@contextmanager
def seeded(seed: Tensor) -> Iterator[None]:
    """A context in which torch's global CPU generator starts from `seed`; its state is restored afterwards.

    A transform that draws from it thus depends on (seed, epoch, index) of its sample alone.
    """
    generator = torch.default_generator  # not torch.manual_seed, which would seed the devices, too
    state = generator.get_state()
    generator.manual_seed(int(seed))
    try:
        yield
    finally:
        generator.set_state(state)


def transform_images(transform: ImageTransform | None, images: Tensor, seed: Tensor) -> Tensor:
    """The transformed images; as they are without a transform.

    Args:
        transform: May draw from torch's global generator.
        images: uint8 [T, 3, H, W].
        seed: Of the sample.
    """
    if transform is None:
        return images
    with seeded(seed):
        return transform(images)


def transform_pair(
    transform: PairTransform | None, image: Tensor, target: Tensor, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """An image and what is known of its pixels after a transform that moves both; as they are without one.

    The transform gets `tv_tensors.Image` and `tv_tensors.Mask`, so those of `torchvision.transforms.v2` serve as well.

    Args:
        transform: May draw from torch's global generator.
        image: uint8 [..., 3, H, W].
        target: Values [H, W], such as depth or classes.
        seed: Of the sample.
    """
    if transform is None:
        return image, target
    with seeded(seed):
        image, target = transform(tv_tensors.Image(image), tv_tensors.Mask(target))
    return image.as_subclass(Tensor), target.as_subclass(Tensor)


def draws_at_random(dataset: Any) -> bool:
    """Whether the transform of a data set draws from torch's global generator; reads the first sample to see it.

    Args:
        dataset: Any map-style data set; one without `transform` does not.
    """
    transform = getattr(dataset, "transform", None)
    if transform is None or len(dataset) == 0:
        return False
    drew = []

    def watched(*args: Any) -> Any:
        before = torch.get_rng_state()
        result = transform(*args)
        drew.append(not torch.equal(before, torch.get_rng_state()))
        return result

    other = copy(dataset)
    other.transform = watched
    with seeded(torch.tensor(0)):
        other[0]
    return any(drew)


def square_crop(size: int, random: bool = False) -> v2.Compose:
    """Scale the shorter side to `size` and cut a square at the centre, or at a random place.

    Args:
        size: Side of the square in pixels.
        random: Draw the place of the square from torch's global generator, once for all frames.
    """
    resize = v2.Resize(size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([resize, v2.RandomCrop(size) if random else v2.CenterCrop(size)])


class SceneCrop:
    """Scales frames so that they just cover a size, then crops them as centred on the principal point as possible.

    Image, depth and K move together: a point unprojected from the result is the point of the stored depth pixel whose
    centre is nearest. Images are resampled bicubically with a filter against aliasing; depth is not interpolated, which
    would create surfaces between two depths.

    Args:
        size: Height and width of the result, or one number for both.
        enlarge: Cover a size that is up to so many pixels larger on each side, drawn per clip from torch's global
            generator (CUT3R: 15).

    Raises:
        ValueError: If the size is not positive or `enlarge` negative.

    Source: the principal-point crop at integer sizes is CUT3R's, without its common scale for both axes.
    """

    def __init__(self, size: int | tuple[int, int], enlarge: int = 0) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.enlarge = enlarge
        if min(self.size) < 1 or enlarge < 0:
            raise ValueError(f"expected a positive size and enlarge from 0, got {self.size} and {enlarge}")

    def __call__(self, frames: list[SceneFrame]) -> list[SceneFrame]:
        """The frames in the new size."""
        enlarge = int(torch.randint(self.enlarge + 1, ())) if self.enlarge else 0
        return [self._crop(frame, enlarge) for frame in frames]

    def _crop(self, frame: SceneFrame, enlarge: int) -> SceneFrame:
        (height, width), (rows, columns) = self.size, frame.size
        target = height + enlarge, width + enlarge
        scale = max(target[0] / rows, target[1] / columns)
        resized = max(target[0], round(rows * scale)), max(target[1], round(columns * scale))
        scaled = resize_intrinsics(frame.intrinsics.double(), frame.size, resized)
        top = _first_pixel(float(scaled[1, 2]), height, resized[0])
        left = _first_pixel(float(scaled[0, 2]), width, resized[1])
        image = resize_images(frame.image, resized)[:, top : top + height, left : left + width].contiguous()
        cropped = replace(frame, image=image, intrinsics=crop_intrinsics(scaled, top, left))
        if frame.depth is None or frame.valid is None:
            return cropped
        down = _source_pixels(frame, 0, top, height, resized[0])
        across = _source_pixels(frame, 1, left, width, resized[1])
        depth, valid = _take(frame.depth, down, across), _take(frame.valid, down, across)
        return replace(cropped, depth=depth, valid=valid, depth_intrinsics=None)


def _first_pixel(centre: float, length: int, available: int) -> int:
    return min(max(round(centre - length / 2), 0), available - length)


def _source_pixels(frame: SceneFrame, axis: int, first: int, length: int, resized: int) -> Int[Tensor, " length"]:
    """Row (axis 0) or column (axis 1) of the depth map that shows what each pixel of the crop shows; -1 for none.

    A crop's pixel has its centre at `first + i + 0.5` of `resized` pixels across the whole image.
    """
    assert frame.depth is not None
    available = frame.depth.shape[axis]
    places = first + torch.arange(length, dtype=torch.float64) + 0.5
    if frame.depth_intrinsics is None:
        source = places * available / resized  # multiplied first: exact where the result is a whole number
    else:
        own, stored = frame.intrinsics.double(), frame.depth_intrinsics.double()
        entry = 1 - axis  # row of K: x is the second axis
        rays = (places * frame.size[axis] / resized - own[entry, 2]) / own[entry, entry]
        source = rays * stored[entry, entry] + stored[entry, 2]
    source = source.floor()
    return torch.where((source >= 0) & (source < available), source, -1).long()


def _take(values: Tensor, rows: Int[Tensor, " h"], columns: Int[Tensor, " w"]) -> Tensor:
    """The values at these rows and columns; 0 outside."""
    inside = (rows >= 0)[:, None] & (columns >= 0)[None]
    return torch.where(inside, values[rows[:, None], columns[None]], torch.zeros((), dtype=values.dtype))


def stack_frames(frames: Sequence[SceneFrame]) -> dict[str, Any]:
    """Fields `images`, `depth`, `valid`, `intrinsics` and `camera_to_world` of a `SceneClip`.

    Depth takes the size and camera of its image; without depth it is 0 and nowhere valid.

    Raises:
        ValueError: If the images differ in size.
    """
    if len(sizes := {frame.size for frame in frames}) > 1:
        raise ValueError(f"the images of one clip differ in size: {sorted(sizes)}; give a transform, such as SceneCrop")
    aligned = [_with_own_depth(frame) for frame in frames]
    return {
        "images": torch.stack([frame.image for frame in aligned]),
        "depth": torch.stack([torch.where(_present(f.valid), _present(f.depth).float(), 0.0) for f in aligned]),
        "valid": torch.stack([_present(frame.valid) for frame in aligned]),
        "intrinsics": torch.stack([frame.intrinsics.float() for frame in aligned]),
        "camera_to_world": torch.stack([frame.camera_to_world.float() for frame in aligned]),
    }


def transform_clip(transform: SceneTransform | None, clip: SceneClip) -> SceneClip:
    """A finished clip after a transform of its frames; as it is without one.

    Args:
        transform: May draw from torch's global generator.
        clip: One sample, not a batch.
    """
    if transform is None:
        return clip
    columns = zip(clip.images, clip.depth, clip.valid, clip.intrinsics, clip.camera_to_world, strict=True)
    names = ("image", "depth", "valid", "intrinsics", "camera_to_world")
    frames = [SceneFrame(**dict(zip(names, values, strict=True))) for values in columns]
    with seeded(clip.seed):
        return replace(clip, **stack_frames(transform(frames)))


def _with_own_depth(frame: SceneFrame) -> SceneFrame:
    """The frame with depth for every pixel of its image."""
    if frame.depth is None:
        return replace(frame, depth=torch.zeros(frame.size), valid=torch.zeros(frame.size, dtype=torch.bool))
    if frame.depth_intrinsics is None and tuple(frame.depth.shape) == frame.size:
        return frame
    down, across = (_source_pixels(frame, axis, 0, frame.size[axis], frame.size[axis]) for axis in (0, 1))
    return replace(frame, depth=_take(frame.depth, down, across), valid=_take(_present(frame.valid), down, across))


def _present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value

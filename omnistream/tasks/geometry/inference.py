"""From images to geometry: sizes, and the frame of the first camera.

Coordinates: OpenCV axes (x right, y down, z forward); the centre of pixel i is at i + 0.5.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnistream.backbone import StreamingViT
from omnistream.backbone.sessions.checks import chosen_rows
from omnistream.cameras import invert_pose, points_from_depth, resize_intrinsics, upsample_rays
from omnistream.tasks.geometry.streaming import StreamedGeometry


@dataclass(frozen=True, kw_only=True)
class ClipGeometry(Sequence[Any]):  # of itself, which has no name yet
    """Geometry of frames. The leading axes `*B` are those of the images: [T], [B, T], or none for a single frame.

    The world is the frame of the first camera of the clip or stream, whose pose is exactly the identity. The scale is
    the model's: in training, a scene is scaled so that the mean distance of its points is 1.

    Attributes:
        depth: Depth along the optical axis, positive, [*B, H, W].
        confidence: Of the depth, above 1, [*B, H, W]; larger is more certain.
        camera_to_world: Poses, [*B, 4, 4].
        intrinsics: K in pixels of the images, [*B, 3, 3].
        points: World coordinates of every pixel, from the predicted depth and rays, [*B, H, W, 3].
    """

    depth: Float[Tensor, "*B H W"]
    confidence: Float[Tensor, "*B H W"]
    camera_to_world: Float[Tensor, "*B 4 4"]
    intrinsics: Float[Tensor, "*B 3 3"]
    points: Float[Tensor, "*B H W 3"]

    def __len__(self) -> int:
        """Length of the first leading axis."""
        return len(self.camera_to_world) if self.camera_to_world.ndim > 2 else 0

    def __getitem__(self, index: int | slice) -> "ClipGeometry":
        """The geometry at this index of the first leading axis: of one frame of a clip, or of one clip.

        Raises:
            IndexError: If there is none.
        """
        if not len(self):
            raise IndexError("this is the geometry of a single frame")
        return ClipGeometry(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class Images:
    """Images as input of the backbone."""

    frames: Float[Tensor, "B T 3 h w"]
    """Normalised, on the backbone's device."""
    leading: tuple[int, ...]
    """Axes of the images before the channels."""
    size: tuple[int, int]
    """Height and width of the given images."""

    @property
    def encoded_size(self) -> tuple[int, int]:
        """Height and width at which they are encoded."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @classmethod
    def prepare(cls, images: Tensor, backbone: StreamingViT, size: tuple[int, int] | None) -> "Images":
        """Check, resize and normalise.

        Raises:
            ValueError: See `TrainedModel.infer`. Values on an accelerator are not checked, which would wait for it.
        """
        if not 3 <= images.ndim <= 5 or images.shape[-3] != 3 or 0 in images.shape:
            raise ValueError(
                f"images must be RGB of shape [T, 3, H, W], [B, T, 3, H, W] or [3, H, W], got {tuple(images.shape)}"
            )
        if images.dtype != torch.uint8:
            if not images.is_floating_point():
                raise ValueError(f"images must be uint8, or floats from 0 to 1, got {images.dtype}")
            if images.device.type == "cpu":
                low, high = (value.item() for value in images.aminmax())
                if not (low >= 0 and high <= 1):
                    raise ValueError(
                        f"images of floats must be from 0 to 1, got {low:.3g} to {high:.3g}; pass them as uint8"
                    )
        height, width = images.shape[-2:]
        if size is None:
            size = _rounded(height, backbone.patch_size), _rounded(width, backbone.patch_size)
        backbone.grid_size(*size)
        clip = images.reshape(1, -1, 3, height, width) if images.ndim < 5 else images
        clip = clip.to(backbone.mean.device)
        if size != (height, width):
            flat = clip.flatten(0, 1)
            flat = flat.float() / 255 if flat.dtype == torch.uint8 else flat
            flat = F.interpolate(flat, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            clip = flat.unflatten(0, clip.shape[:2])
        normalized = backbone.normalize(clip).to(backbone.cls_token.dtype)
        return cls(normalized, tuple(images.shape[:-3]), (height, width))


class FirstCamera:
    """Moves poses and points of streams into the frame of each stream's first camera.

    A frame whose pose is not finite (see `cameras_from_rays`) cannot be the first.
    """

    def __init__(self) -> None:
        self._inverse: Tensor | None = None  # [B, 4, 4], NaN until a stream's first camera is known

    @torch.no_grad()
    def __call__(
        self, camera_to_world: Float[Tensor, "B S 4 4"], points: Float[Tensor, "B S *N 3"]
    ) -> tuple[Float[Tensor, "B S 4 4"], Float[Tensor, "B S *N 3"]]:
        """The next S poses of every stream and points in the same coordinates, in the first camera's frame."""
        if self._inverse is None:
            self._inverse = torch.full_like(camera_to_world[:, 0], torch.nan)
        finite = camera_to_world.isfinite().all(-1).all(-1)  # [B, S]
        at = finite.float().argmax(1)
        unknown = ~self._inverse.isfinite().all(-1).all(-1)
        candidate = invert_pose(camera_to_world[torch.arange(len(at), device=at.device), at])
        self._inverse = torch.where(unknown[:, None, None], candidate, self._inverse)
        is_first = unknown[:, None] & finite & (torch.arange(finite.shape[1], device=at.device) == at[:, None])
        poses = self._inverse[:, None] @ camera_to_world
        poses = torch.where(is_first[..., None, None], torch.eye(4, device=at.device), poses)  # exactly
        flat = points.flatten(2, -2)
        moved = flat @ self._inverse[:, None, :3, :3].mT + self._inverse[:, None, None, :3, 3]
        return poses, moved.view_as(points)

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None = None) -> None:
        """Forget the first camera of these streams, or of all streams."""
        if self._inverse is not None:
            self._inverse[chosen_rows(rows, len(self._inverse)).to(self._inverse.device)] = torch.nan


def _rounded(side: int, patch_size: int) -> int:
    return max(1, round(side / patch_size)) * patch_size


def clip_geometry(geometry: StreamedGeometry, images: Images, first: FirstCamera) -> ClipGeometry:
    """Results at the size of the images, with their leading axes, in the first camera's frame."""
    depth, confidence = (
        _resize(x[..., None], images.size)[..., 0] for x in (geometry.depth, geometry.depth_confidence)
    )
    rays = upsample_rays(geometry.rays, geometry.depth.shape[-1] // geometry.rays.shape[-2])
    points = points_from_depth(depth, _resize(rays, images.size))
    poses, points = first(geometry.camera_to_world, points)
    intrinsics = resize_intrinsics(geometry.intrinsics, images.encoded_size, images.size)
    found = {"depth": depth, "confidence": confidence, "camera_to_world": poses, "intrinsics": intrinsics}
    found["points"] = points
    return ClipGeometry(**{name: value.reshape(*images.leading, *value.shape[2:]) for name, value in found.items()})


def _resize(maps: Float[Tensor, "B T h w C"], size: tuple[int, int]) -> Float[Tensor, "B T H W C"]:
    if maps.shape[2:4] == size:
        return maps
    channels_first = rearrange(maps, "b t h w c -> (b t) c h w")
    resized = F.interpolate(channels_first, size=size, mode="bilinear", align_corners=False)
    return rearrange(resized, "(b t) c h w -> b t h w c", b=len(maps))

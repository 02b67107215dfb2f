"""Which points of a video an evaluation of point maps compares, true and predicted, in bounded memory."""

import math
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from omnistream.cameras import points_from_depth, rays_from_cameras, resize_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.metrics import VoxelCloud
from omnistream.metrics.pair_store import PairStore

_EXACT = 1 << 24
"""Pixels whose numbers float32 holds exactly."""


class TrueView(NamedTuple):
    """The truth of one frame, as float64: a depth map, which of its pixels count, and both cameras."""

    depth: Float64[Tensor, "H W"]
    counts: Bool[Tensor, "H W"]
    """Pixels with a true depth that the image shows; none where pose or intrinsics are not known."""
    intrinsics: Float64[Tensor, "3 3"]
    """Of the depth map."""
    image_intrinsics: Float64[Tensor, "3 3"]
    image_size: tuple[int, int]
    """Height and width."""
    camera_to_world: Float64[Tensor, "4 4"]

    def points(self) -> Float64[Tensor, "N 3"]:
        """True points in the world, one per pixel that counts."""
        rays = rays_from_cameras(self.intrinsics, self.camera_to_world, (self.depth.shape[0], self.depth.shape[1]))
        return points_from_depth(self.depth, rays)[self.counts]

    def camera_of(self, size: tuple[int, int]) -> Float64[Tensor, "3 3"]:
        """True K of a prediction of the image with this height and width."""
        return resize_intrinsics(self.image_intrinsics, self.image_size, size)

    def judged(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """Pixels of a prediction whose centre falls on a pixel that counts."""
        if not self.counts.any():
            return torch.zeros(size, dtype=torch.bool)
        return _looked_up(self.counts, self.intrinsics, self.camera_of(size), size)


def true_view(frame: SceneFrame, max_depth: float | None = None) -> TrueView | None:
    """The truth of a frame; None if it has no depth.

    Args:
        frame: Image and depth may be of two cameras with one centre and the same axes, as those of 7-Scenes.
        max_depth: Only true depth below this counts.
    """
    if frame.depth is None or frame.valid is None:
        return None
    depth, image_intrinsics = frame.depth.double(), frame.intrinsics.double()
    size = (depth.shape[0], depth.shape[1])
    own = frame.depth_intrinsics
    intrinsics = resize_intrinsics(image_intrinsics, frame.size, size) if own is None else own.double()
    pose = frame.camera_to_world.double()
    counts = frame.valid if max_depth is None else frame.valid & (depth < max_depth)
    if all(part.isfinite().all() for part in (pose, intrinsics, image_intrinsics)):
        shown = torch.ones(frame.size, dtype=torch.bool)
        counts = counts & _looked_up(shown, image_intrinsics, intrinsics, size)
    else:
        counts = torch.zeros_like(counts)
    return TrueView(depth, counts, intrinsics, image_intrinsics, frame.size, pose)


def _looked_up(
    mask: Bool[Tensor, "H W"],
    intrinsics: Float64[Tensor, "3 3"],
    other: Float64[Tensor, "3 3"],
    size: tuple[int, int],
) -> Bool[Tensor, "h w"]:
    """A mask as another camera with the same centre and axes sees it; False beyond its border.

    Args:
        mask: Of the first camera.
        intrinsics: Of the first camera.
        other: K of the other camera.
        size: Height and width of the other camera's image.
    """
    directions = rays_from_cameras(other, torch.eye(4, dtype=other.dtype), size)[..., 3:]
    columns, rows = (directions @ intrinsics.mT)[..., :2].floor().long().unbind(-1)  # z of a direction is 1
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    return inside & mask[rows.clamp(0, mask.shape[0] - 1), columns.clamp(0, mask.shape[1] - 1)]


class TrueCloud:
    """The true points of a video, one per voxel, collected while the video passes.

    Args:
        voxel: Side of a voxel.
        max_depth: Only true depth below this counts.
    """

    def __init__(self, voxel: float, max_depth: float | None) -> None:
        self.max_depth = max_depth
        self.cameras: list[Tensor] = []
        """True K of every prediction so far."""
        self.num_pixels = 0
        """Of all frames that count."""
        self._cloud = VoxelCloud(voxel)
        self._log_depth = 0.0

    def add(self, frame: SceneFrame, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """The next frame.

        Args:
            frame: With its truth.
            size: Height and width of its prediction.

        Returns:
            Pixels of the prediction that are judged.

        Raises:
            ValueError: If a point is too far away for the size of the voxels.
        """
        view = true_view(frame, self.max_depth)
        if view is None:
            self.cameras.append(torch.full((3, 3), torch.nan, dtype=torch.float64))
            return torch.zeros(size, dtype=torch.bool)
        try:
            self._cloud.add(view.points())
        except ValueError as error:
            raise ValueError(f"true {error}; set max_depth or a larger voxel") from error
        self.cameras.append(view.camera_of(size))
        self._log_depth += float(view.depth[view.counts].log().sum())
        self.num_pixels += int(view.counts.sum())
        return view.judged(size)

    @property
    def points(self) -> Float64[Tensor, "K 3"]:
        """One per voxel."""
        return self._cloud.points

    @property
    def typical_depth(self) -> float:
        """Geometric mean of the true depth, of which there is some."""
        return math.exp(self._log_depth / self.num_pixels)


class JudgedDepth:
    """Predicted depth of a video at the pixels that are judged, until the whole stream has been seen.

    The similarity that brings a prediction to the truth, and with it the size of a voxel in the prediction's own unit,
    is known only then. Depth is kept as `PairStore` keeps pairs: in memory up to a limit, beyond it in a file.

    Args:
        memory_limit: Bytes in memory; a pixel has 8.
    """

    def __init__(self, memory_limit: int = 1 << 28) -> None:
        self.size: tuple[int, int] | None = None
        """Height and width of the predictions."""
        self._store = PairStore(memory_limit)

    def add(self, depth: Float[Tensor, "h w"], judged: Bool[Tensor, "h w"]) -> None:
        """The next frame; all are of one size.

        Raises:
            ValueError: If the map is too large for its pixels to be numbered.
        """
        if depth.numel() > _EXACT:
            raise ValueError(f"the predicted depth has {depth.numel()} pixels; at most {_EXACT} can be scored")
        self.size = (depth.shape[0], depth.shape[1])
        places = judged.flatten().nonzero()[:, 0]
        self._store.append(depth.flatten()[places], places)

    def points(
        self,
        intrinsics: list[Float[Tensor, "3 3"]],
        camera_to_world: Float[Tensor, "T 4 4"],
        constant: float | None = None,
    ) -> Iterator[tuple[int, Float64[Tensor, "N 3"]]]:
        """Number and points of every frame that has judged pixels.

        Args:
            intrinsics: K of each frame, in pixels of the prediction.
            camera_to_world: Poses.
            constant: A depth in place of the predicted one.
        """
        if self.size is None:
            return
        for frame, depth, places in self._store.groups():
            rays = rays_from_cameras(intrinsics[frame].double(), camera_to_world[frame].double(), self.size)
            chosen = rays.flatten(0, 1)[places.long()]
            depth = depth if constant is None else torch.full_like(depth, constant)
            yield frame, points_from_depth(depth[None], chosen[None])[0]

    def __enter__(self) -> "JudgedDepth":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._store.close()

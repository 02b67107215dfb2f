"""Fixtures of scenes in the authors' own file formats."""

from collections.abc import Callable

import pytest
import torch
from scene_files import WRITERS, Room


@pytest.fixture
def write_scene() -> Callable[..., Room]:
    """Writes a sequence in a layout to a folder and returns its ground truth."""
    return lambda layout, folder, **options: WRITERS[layout](folder, **options)


@pytest.fixture
def disagreement() -> Callable[..., torch.Tensor]:
    """Relative depth errors where the points of frame `a` of a clip fall into frame `b` and are not hidden there."""

    def compare(clip, a: int, b: int) -> torch.Tensor:
        height, width = clip.depth.shape[1:]
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], -1).double()
        rays = pixels @ torch.linalg.inv(clip.intrinsics[a].double()).T
        points = (rays * clip.depth[a, ..., None])[clip.valid[a]]
        poses = clip.camera_to_world.double()
        move = torch.linalg.inv(poses[b]) @ poses[a]
        moved = points @ move[:3, :3].T + move[:3, 3]
        u, v, _ = (moved / moved[:, 2:] @ clip.intrinsics[b].double().T).floor().long().unbind(-1)
        inside = (moved[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        seen, expected = clip.depth[b][v[inside], u[inside]].double(), moved[inside, 2]
        known = seen > 0
        relative = (seen[known] / expected[known] - 1).abs()
        assert len(relative) > 0.2 * height * width
        return relative[seen[known] > 0.9 * expected[known]]  # nearer ones hide the point

    return compare

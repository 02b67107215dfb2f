"""A made-up clip with exact geometry: a wavy surface in front of a moving camera."""

import pytest
import torch

from omnistream.cameras import make_intrinsics, make_pose, matrix_from_quaternion
from omnistream.data.batch import SceneClip


def make_clip(batch=2, frames=3, size=(16, 24), seed=0, dtype=torch.float32) -> SceneClip:
    generator = torch.Generator().manual_seed(seed)
    H, W = size
    y, x = torch.meshgrid(torch.linspace(0, 3, H), torch.linspace(0, 4, W), indexing="ij")
    phase = torch.rand(batch, frames, 1, 1, generator=generator)
    depth = 3 + torch.sin(x + 3 * phase) + 0.5 * torch.cos(2 * y)
    colour = torch.stack([depth * 50, (x * 60).expand_as(depth), (y * 80).expand_as(depth)], 2)
    quaternion = torch.tensor([0.0, 0.0, 0.0, 1.0]) + 0.2 * torch.randn(batch, frames, 4, generator=generator)
    translation = torch.randn(batch, frames, 3, generator=generator)
    focal, half = torch.full((batch, frames), 1.1 * W), torch.ones(batch, frames)
    return SceneClip(
        images=colour.clamp(0, 255).to(torch.uint8),
        depth=depth.to(dtype),
        valid=torch.ones(batch, frames, H, W, dtype=torch.bool),
        intrinsics=make_intrinsics(focal, focal, half * W / 2, half * H / 2).to(dtype),
        camera_to_world=make_pose(matrix_from_quaternion(quaternion.to(dtype)), translation.to(dtype)),
        is_metric=torch.ones(batch, dtype=torch.bool),
        is_video=torch.ones(batch, dtype=torch.bool),
        name=[f"clip {i}" for i in range(batch)],
        seed=torch.arange(batch),
    )


@pytest.fixture
def clip():
    return make_clip(dtype=torch.float64)


@pytest.fixture
def make_scene_clip():
    return make_clip

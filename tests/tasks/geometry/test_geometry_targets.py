from dataclasses import fields, replace

import pytest
import torch

from omnistream.cameras import (
    decode_pose,
    invert_pose,
    make_pose,
    matrix_from_quaternion,
    points_from_depth,
    project,
    relative_to_first,
    upsample_rays,
)
from omnistream.tasks.geometry import geometry_targets, scene_scale


def assert_same(first, second, but=()):
    for field in fields(first):
        if field.name not in but:
            torch.testing.assert_close(getattr(first, field.name), getattr(second, field.name), msg=lambda m: f"{m}")


def test_published_normalisation():
    world_to_camera = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    world_to_camera[0, 2, 3] = 1
    world_to_camera[1, :3, :3] = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    world_to_camera[1, :3, 3] = torch.tensor([0.5, 0, 2])
    world = torch.tensor([[[1, 2, 3], [0, 0, 4]], [[2, -1, 2], [9, 9, 9]]], dtype=torch.float64)
    points = (world + world_to_camera[0, :3, 3])[None, :, None]  # [B, T, H=1, W=2, 3] in the first camera
    valid = torch.tensor([[[[True, True]], [[True, False]]]])
    scale = scene_scale(points, valid)
    assert scale.item() == pytest.approx(4.439931, abs=1e-6)
    second = invert_pose(relative_to_first(invert_pose(world_to_camera)))[1]
    expected = torch.tensor([0.112614, 0, 0.225229], dtype=torch.float64)
    torch.testing.assert_close(second[:3, 3] / scale, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(second[:3, :3], world_to_camera[1, :3, :3])
    scaled = torch.tensor(
        [[0.225229, 0.450457, 0.900915], [0, 0, 1.126144], [0.450457, -0.225229, 0.675686]], dtype=torch.float64
    )
    torch.testing.assert_close(points[valid] / scale, scaled, atol=1e-6, rtol=0)
    assert scene_scale(points, valid, "first").item() == pytest.approx((4.582576 + 5) / 2.001, abs=1e-6)


def test_parts_agree_with_one_another(clip):
    targets = geometry_targets(clip)
    assert targets.valid.all()
    assert targets.ray_valid.all()
    assert targets.pose_valid.all()
    torch.testing.assert_close(points_from_depth(targets.depth, targets.rays), targets.points)
    pose, intrinsics = decode_pose(targets.pose, clip.depth.shape[-2:])
    torch.testing.assert_close(intrinsics, clip.intrinsics)
    torch.testing.assert_close(pose[..., :3, 3], targets.rays[:, :, 0, 0, :3])
    pixels, depth = project(targets.points.flatten(2, 3), intrinsics, pose)
    torch.testing.assert_close(depth, targets.depth.flatten(2))
    assert pixels[0, 1, 0].tolist() == pytest.approx([0.5, 0.5])
    # The mean distance is 1 up to the small number added to VGGT's count.
    torch.testing.assert_close(targets.points.norm(dim=-1).mean((1, 2, 3)), torch.ones(2).double(), atol=1e-5, rtol=0)


def test_first_frame_is_the_reference(clip):
    targets = geometry_targets(clip)
    expected = torch.tensor([0, 0, 0, 0, 0, 0, 1], dtype=torch.float64).expand(2, 7)
    torch.testing.assert_close(targets.pose[:, 0, :7], expected)
    torch.testing.assert_close(targets.rays[:, 0, ..., 5], torch.ones_like(targets.depth[:, 0]))


def test_world_frame_and_unit_do_not_matter(clip):
    quaternion = torch.tensor([0.3, -0.5, 0.1, 0.7], dtype=torch.float64)
    world = make_pose(matrix_from_quaternion(quaternion), torch.tensor([7.0, -2, 30], dtype=torch.float64))
    poses = world @ clip.camera_to_world
    poses[..., :3, 3] *= 1000
    other = geometry_targets(replace(clip, depth=clip.depth * 1000, camera_to_world=poses))
    targets = geometry_targets(clip)
    assert_same(other, targets, but=("scale",))
    torch.testing.assert_close(other.scale, targets.scale * 1000)


def test_invalid_pixels_count_for_nothing(clip):
    depth, valid = clip.depth.clone(), clip.valid.clone()
    depth[0, 1, 0, :5] = torch.tensor([torch.nan, torch.inf, 0.0, -2.0, 500.0])
    valid[0, 1, 0, 4] = False
    targets = geometry_targets(replace(clip, depth=depth, valid=valid))
    assert not targets.valid[0, 1, 0, :5].any()
    assert targets.valid.sum() == valid.numel() - 5
    assert (targets.depth[~targets.valid] == 0).all()
    assert (targets.points[~targets.valid] == 0).all()
    assert targets.ray_valid.all()
    distance = targets.points[0].norm(dim=-1)[targets.valid[0]]
    assert distance.mean().item() == pytest.approx(1, abs=1e-5)


def test_clip_without_points_in_its_first_frame_is_invalid(clip):
    valid = clip.valid.clone()
    valid[0, 0] = False
    targets = geometry_targets(replace(clip, valid=valid))
    assert not targets.valid[0].any()
    assert not targets.ray_valid[0].any()
    assert not targets.pose_valid[0].any()
    assert targets.valid[1].all()
    assert targets.pose_valid[1].all()
    assert all(torch.isfinite(getattr(targets, f.name)).all() for f in fields(targets))


def test_poses_need_enough_pixels_in_the_first_frame(clip):
    valid = clip.valid.clone()
    valid[0, 0] = False
    valid[0, 0, :5, :20] = True  # 100 pixels
    targets = geometry_targets(replace(clip, valid=valid))
    assert targets.ray_valid.all()
    assert targets.pose_valid.tolist() == [[False] * 3, [True] * 3]
    assert geometry_targets(replace(clip, valid=valid), min_first_pixels=99).pose_valid.all()


@pytest.mark.parametrize("field", ["camera_to_world", "intrinsics"])
def test_unknown_cameras(clip, field):
    value = getattr(clip, field).clone()
    value[0, 1], value[1, 0] = torch.nan, torch.inf
    targets = geometry_targets(replace(clip, **{field: value}))
    assert targets.ray_valid.tolist() == [[True, False, True], [False] * 3]
    assert torch.equal(targets.pose_valid, targets.ray_valid)
    assert torch.equal(targets.valid.all((-2, -1)), targets.ray_valid)
    assert all(torch.isfinite(getattr(targets, f.name)).all() for f in fields(targets))


def test_scale_of_the_first_frame_ignores_the_future(clip):
    changed = clip.depth.clone()
    changed[:, 1:] *= 5
    first = [geometry_targets(replace(clip, depth=d), scale_frames="first") for d in (clip.depth, changed)]
    torch.testing.assert_close(first[0].scale, first[1].scale)
    torch.testing.assert_close(first[0].pose, first[1].pose)
    assert (geometry_targets(replace(clip, depth=changed)).scale > geometry_targets(clip).scale).all()


def test_rays_of_a_smaller_grid(clip):
    small, full = geometry_targets(clip, ray_down_ratio=2), geometry_targets(clip)
    assert small.rays.shape[2:4] == (8, 12)
    torch.testing.assert_close(upsample_rays(small.rays, 2), full.rays)


def test_pose_direction(clip):
    there, back = geometry_targets(clip), geometry_targets(clip, world_to_camera=True)
    size = clip.depth.shape[-2:]
    torch.testing.assert_close(decode_pose(there.pose, size)[0], decode_pose(back.pose, size, world_to_camera=True)[0])
    assert_same(there, back, but=("pose",))


def test_precision_under_autocast(make_scene_clip):
    clip = make_scene_clip()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = geometry_targets(clip)
    assert_same(inside, geometry_targets(clip))
    assert inside.rays.dtype == torch.float32

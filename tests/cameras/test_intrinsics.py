import math

import pytest
import torch

from omnistream.cameras import (
    crop_intrinsics,
    fov_from_intrinsics,
    from_opencv_intrinsics,
    intrinsics_from_fov,
    make_intrinsics,
    project,
    resize_intrinsics,
    rotate_camera_clockwise,
    to_opencv_intrinsics,
)


def pinhole(fx, fy, cx, cy):
    return make_intrinsics(*torch.tensor([fx, fy, cx, cy], dtype=torch.float64))


def test_field_of_view_height_first():
    fov = fov_from_intrinsics(pinhole(600, 500, 256, 192), (384, 512))
    expected = torch.tensor([42.013579, 46.212654], dtype=torch.float64)
    torch.testing.assert_close(fov * 180 / math.pi, expected, atol=1e-6, rtol=0)


def test_intrinsics_from_fov():
    intrinsics = intrinsics_from_fov(torch.tensor([1.0, 1.2], dtype=torch.float64), (224, 224))
    torch.testing.assert_close(intrinsics, pinhole(163.709946, 205.014625, 112, 112), atol=1e-6, rtol=0)


def test_fov_of_zero_stays_finite():
    assert torch.isfinite(intrinsics_from_fov(torch.zeros(3, 2), (64, 96))).all()


def test_fov_round_trip_in_batches():
    fov = torch.rand(2, 5, 2, dtype=torch.float64) + 0.3
    torch.testing.assert_close(fov_from_intrinsics(intrinsics_from_fov(fov, (48, 80)), (48, 80)), fov)


def test_resize_and_crop_of_a_vga_camera():
    half_pixel = from_opencv_intrinsics(pinhole(500, 500, 320, 240))
    torch.testing.assert_close(half_pixel, pinhole(500, 500, 320.5, 240.5))
    resized = resize_intrinsics(half_pixel, (480, 640), (224, 299))
    torch.testing.assert_close(resized, pinhole(233.59375, 233.333333, 149.733594, 112.233333), atol=1e-6, rtol=0)
    cropped = crop_intrinsics(resized, top=0, left=38)
    torch.testing.assert_close(cropped, pinhole(233.59375, 233.333333, 111.733594, 112.233333), atol=1e-6, rtol=0)
    fov = fov_from_intrinsics(cropped, (224, 224))
    torch.testing.assert_close(fov, torch.tensor([0.895040, 0.894170], dtype=torch.float64), atol=1e-6, rtol=0)


def test_opencv_resize_rule():
    """cx' = (cx + 0.5) s - 0.5 in OpenCV's convention."""
    resized = resize_intrinsics(from_opencv_intrinsics(pinhole(500, 510, 331.2, 228.7)), (480, 640), (240, 160))
    expected = pinhole(125, 255, (331.2 + 0.5) / 4 - 0.5, (228.7 + 0.5) / 2 - 0.5)
    torch.testing.assert_close(to_opencv_intrinsics(resized), expected)


@pytest.mark.parametrize("size", [(48, 80), (80, 48)])
def test_clockwise_turn_shows_the_same_points(size, camera_to_world):
    intrinsics = pinhole(50, 60, 41, 22)
    points = (camera_to_world @ torch.tensor([[0.3, -0.2, 2.0, 1], [-1, 0.4, 3, 1], [0, 0, 1, 1]]).double().T).T[:, :3]
    before, depth = project(points, intrinsics, camera_to_world)
    turned_intrinsics, turned_pose = rotate_camera_clockwise(intrinsics, camera_to_world, size)
    after, turned_depth = project(points, turned_intrinsics, turned_pose)
    torch.testing.assert_close(after, torch.stack([size[0] - before[:, 1], before[:, 0]], -1))
    torch.testing.assert_close(turned_depth, depth)
    assert torch.linalg.det(turned_pose) == pytest.approx(1)

import pytest
import torch

from omnistream.cameras import (
    cameras_from_rays,
    fov_from_intrinsics,
    make_intrinsics,
    points_from_depth,
    project,
    rays_from_cameras,
    resize_intrinsics,
    rotation_angle,
    upsample_rays,
)


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float64), atol=atol, rtol=0)


@pytest.fixture
def intrinsics():
    return make_intrinsics(*torch.tensor([5.0, 4.0, 2.0, 1.5], dtype=torch.float64))


def test_ray_map(camera_to_world, intrinsics):
    rays = rays_from_cameras(intrinsics, camera_to_world, (3, 4))
    direction = rays[..., 3:]
    close(direction[0, 0], [-0.019581, 0.120534, 1.066578])
    close(direction[1, 2], [0.423400, 0.108792, 0.904929])
    close(direction[2, 3], [0.703621, 0.205818, 0.784255])
    close(direction.norm(dim=-1)[0, 0], 1.073546)
    close(direction.norm(dim=-1).mean(), 1.044557)
    close(rays[..., :3], camera_to_world[:3, 3].expand(3, 4, 3))
    close(fov_from_intrinsics(intrinsics, (3, 4)), [0.717541, 0.761013])


def test_points_and_projection(camera_to_world, intrinsics):
    depth = torch.tensor([[1.0, 2, 3, 4], [2, 2, 2, 2], [4, 3, 2, 0]], dtype=torch.float64)
    points = points_from_depth(depth, rays_from_cameras(intrinsics, camera_to_world, (3, 4)))
    close(points[0, 0], [-0.993058, 0.271895, -0.761517])
    close(points[1, 2], [-0.126678, 0.368945, -0.018237])
    close(points[2, 3], camera_to_world[:3, 3])
    pixels, z = project(points[1, 2:3], intrinsics, camera_to_world)
    close(pixels[0], [2.5, 1.5])
    close(z[0], 2)


def test_every_pixel_comes_back(camera_to_world):
    skewed = torch.tensor([[5.0, 0.3, 2.2], [0, 4, 1.4], [0, 0, 1]], dtype=torch.float64)
    cameras, poses = skewed.expand(2, 3, 3, 3), camera_to_world.expand(2, 3, 4, 4)
    depth = torch.rand(2, 3, 3, 4, dtype=torch.float64) + 0.5
    points = points_from_depth(depth, rays_from_cameras(cameras, poses, (3, 4)))
    pixels, z = project(points.flatten(2, 3), cameras, poses)
    rows, columns = torch.meshgrid(torch.arange(3) + 0.5, torch.arange(4) + 0.5, indexing="ij")
    expected = torch.stack([columns, rows], -1).flatten(0, 1).double().expand(2, 3, 12, 2)
    torch.testing.assert_close(pixels, expected)
    torch.testing.assert_close(z, depth.flatten(2, 3))


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_upsampled_rays_are_exact(camera_to_world, intrinsics, ratio):
    cameras, poses = intrinsics.expand(2, 3, 3), camera_to_world.expand(2, 4, 4)
    small = rays_from_cameras(cameras, poses, (3, 4))
    size = (3 * ratio, 4 * ratio)
    large = rays_from_cameras(resize_intrinsics(cameras, (3, 4), size), poses, size)
    torch.testing.assert_close(upsample_rays(small, ratio), large)


def test_upsampling_one_row_is_refused():
    with pytest.raises(ValueError, match="2x2"):
        upsample_rays(torch.zeros(1, 4, 6), 2)


@pytest.mark.parametrize(("centre", "unit_centre"), [((16.0, 12.0), (1, 1)), ((18.0, 11.0), (1.125, 0.916667))])
def test_camera_from_rays(camera_to_world, centre, unit_centre):
    intrinsics = make_intrinsics(*torch.tensor([37.5, 31.25, *centre], dtype=torch.float64))
    pose, solved = cameras_from_rays(rays_from_cameras(intrinsics, camera_to_world, (24, 32)))
    torch.testing.assert_close(pose, camera_to_world)
    torch.testing.assert_close(solved, intrinsics)
    _, unit = cameras_from_rays(rays_from_cameras(intrinsics, camera_to_world, (24, 32)), size=(2, 2))
    close(unit[[0, 1, 0, 1], [0, 1, 2, 2]], [2.343750, 2.604167, *unit_centre])
    close(fov_from_intrinsics(solved, (24, 32)), [0.733275, 0.806563])


@pytest.mark.parametrize("degrees", [0, 60, 90, 120, 180])
def test_noisy_rays_at_any_heading(degrees):
    """Noise of 0.05 on directions of 28x28 rays: about 1 degree at every heading (division by z is off by 10 at 90)."""
    angle = torch.deg2rad(torch.tensor(float(degrees), dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    intrinsics = make_intrinsics(*torch.tensor([30.0, 30, 14, 14], dtype=torch.float64))
    rays = rays_from_cameras(intrinsics, pose, (28, 28)).expand(5, 28, 28, 6)
    noise = torch.randn(5, 28, 28, 3, dtype=torch.float64) * 0.05
    solved, _ = cameras_from_rays(torch.cat([rays[..., :3], rays[..., 3:] + noise], -1))
    assert rotation_angle(solved[:, :3, :3], pose[:3, :3].expand(5, 3, 3)).max() < 1.5


def test_confidence_silences_outliers(camera_to_world, intrinsics):
    rays = rays_from_cameras(intrinsics, camera_to_world, (3, 4)).repeat(2, 1, 1, 1)
    confidence = torch.ones(2, 3, 4, dtype=torch.float64)
    rays[:, 0, :2] = 7.0
    confidence[:, 0, :2] = 0
    pose, solved = cameras_from_rays(rays, confidence)
    torch.testing.assert_close(pose, camera_to_world.expand(2, 4, 4))
    torch.testing.assert_close(solved, intrinsics.expand(2, 3, 3))


def test_mirror_image_has_no_camera(camera_to_world, intrinsics):
    rays = rays_from_cameras(intrinsics, camera_to_world, (3, 4))
    both = torch.stack([rays, rays.flip(1)])
    pose, solved = cameras_from_rays(both)
    assert torch.isfinite(pose[0]).all()
    assert torch.isnan(pose[1]).all()
    assert torch.isnan(solved[1]).all()


def test_solver_is_differentiable(camera_to_world, intrinsics):
    rays = rays_from_cameras(intrinsics, camera_to_world, (3, 4)) + torch.randn(3, 4, 6, dtype=torch.float64) * 0.02
    assert torch.autograd.gradcheck(cameras_from_rays, rays.requires_grad_())

"""Geometry heads on a stream against the whole clip.

1e-4: float32 attention over a cache sums in another order; the heads amplify it a little.
"""

import pytest
import torch

from omnistream.backbone import create_model
from omnistream.cameras import cameras_from_rays, decode_pose, points_from_depth, rays_from_cameras
from omnistream.tasks.geometry import GeometryModule, GeometryStream

SIZE = (16, 24)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def backbone():
    return create_model("vit_nano").eval()


@pytest.fixture
def build(backbone):
    def build(**options):
        module = GeometryModule(features=16, out_channels=(8, 12, 16, 16), hidden=8, **options)
        module.build(backbone)
        return module.eval()

    return build


def with_rays_of_a_camera(module, size):
    """The module, with the rays of a camera added to its own: those of random weights belong to none."""
    intrinsics = torch.tensor([[size[1], 0, size[1] / 2], [0, size[1], size[0] / 2], [0, 0, 1.0]])
    rays = rays_from_cameras(intrinsics, torch.eye(4), size)
    module.dense.register_forward_hook(lambda _, inputs, maps: maps._replace(rays=rays + 0.1 * maps.rays))
    return module


@pytest.mark.parametrize("cameras", ["head", "rays"])
@pytest.mark.parametrize("chunks", [[1] * 5, [2, 1, 2]])
def test_results_are_those_of_the_whole_clip(backbone, build, make_scene_clip, cameras, chunks):
    module = with_rays_of_a_camera(build(world_to_camera=True), SIZE)
    images = make_scene_clip(frames=5, size=SIZE).images
    whole = module.predict(backbone, images)
    poses, intrinsics = (
        decode_pose(whole.pose, SIZE, world_to_camera=True)
        if cameras == "head"
        else cameras_from_rays(whole.rays, None, SIZE)
    )
    session = backbone.stream(heads={"geometry": GeometryStream(module, cameras)})
    outputs = [session.step(part) for part in backbone.normalize(images).split(chunks, dim=1)]
    found = [output.heads["geometry"] for output in outputs]
    for name in ("depth", "depth_confidence", "rays", "ray_confidence", "pose", "points"):
        torch.testing.assert_close(torch.cat([getattr(f, name) for f in found], 1), getattr(whole, name), **CLOSE)
    torch.testing.assert_close(torch.cat([f.camera_to_world for f in found], 1), poses, **CLOSE)
    torch.testing.assert_close(torch.cat([f.intrinsics for f in found], 1), intrinsics, **CLOSE)
    assert intrinsics[:, 1:].sub(intrinsics[:, :1]).abs().amax() > 100 * CLOSE["atol"]  # frames differ
    assert all(output.patches == {} for output in outputs)


def test_half_size_rays_refer_to_the_frames(backbone, build, make_scene_clip):
    images = make_scene_clip(frames=1, size=(32, 48)).images
    module = with_rays_of_a_camera(build(ray_down_ratio=2), (16, 24))
    session = backbone.stream(heads={"geometry": GeometryStream(module, "rays")})
    found = session.step(backbone.normalize(images)).heads["geometry"]
    assert found.rays.shape == (2, 1, 16, 24, 6)
    assert found.points.shape == (2, 1, 32, 48, 3)
    small = cameras_from_rays(found.rays, None, (16, 24))[1]
    torch.testing.assert_close(found.intrinsics[..., :2, :], 2 * small[..., :2, :])


def test_points_come_from_the_rays(backbone, build, make_scene_clip):
    images = make_scene_clip(frames=1, size=SIZE).images
    session = backbone.stream(heads={"geometry": GeometryStream(build())})
    found = session.step(backbone.normalize(images)).heads["geometry"]
    torch.testing.assert_close(found.points, points_from_depth(found.depth, found.rays))


def test_streams_at_different_frames(backbone, build, make_scene_clip):
    """After a reset of one row, heads still see the rows in their order."""
    module, images = build(), backbone.normalize(make_scene_clip(frames=3, size=SIZE).images)
    session = backbone.stream(heads={"geometry": GeometryStream(module)})
    session.step(images[:, :2])
    session.reset([0])
    found = session.step(images[:, 2:]).heads["geometry"].depth
    fresh = backbone.stream(heads={"geometry": GeometryStream(module)})
    torch.testing.assert_close(found[0], fresh.step(images[:, 2:]).heads["geometry"].depth[0], **CLOSE)
    torch.testing.assert_close(found[1], module.read(full(backbone, module, images)).depth[1, 2:], **CLOSE)


@torch.no_grad()
def full(backbone, module, images):
    aspect = torch.full((len(images),), SIZE[0] / SIZE[1])
    return backbone(images, layers=module.head_layers, camera_token=True, aspect_ratio=aspect)


def test_layers_of_the_caller_are_kept_and_a_given_aspect_ratio_wins(backbone, build):
    images, head = torch.randn(1, 1, 3, *SIZE), GeometryStream(build())
    output = backbone.stream(heads={"geometry": head}, layers=(2,)).step(images)
    assert list(output.patches) == [2]
    torch.testing.assert_close(output.patches[2], backbone.stream(layers=(2,), camera_token=True,
                               aspect_ratio=torch.tensor([2 / 3])).step(images).patches[2])  # fmt: skip
    told = backbone.stream(heads={"geometry": head}, aspect_ratio=torch.tensor([3.0])).step(images)
    assert not torch.equal(told.camera, output.camera)


def test_state_goes_on_only_with_the_same_need_for_the_aspect_ratio(backbone, build):
    images, heads = torch.randn(1, 4, 3, *SIZE), {"geometry": GeometryStream(build())}
    session = backbone.stream(heads=heads)
    session.step(images[:, :2])
    other = backbone.stream(heads=heads)
    other.load_state_dict(session.state_dict())
    expected = session.fork().step(images[:, 2:]).heads["geometry"].depth
    torch.testing.assert_close(other.step(images[:, 2:]).heads["geometry"].depth, expected)
    with pytest.raises(ValueError, match="saved with options"):
        backbone.stream(camera_token=True).load_state_dict(session.state_dict())


def test_without_heads_there_are_no_results(backbone):
    assert backbone.stream().step(torch.randn(1, 1, 3, *SIZE)).heads == {}


def test_misuse(backbone):
    with pytest.raises(ValueError, match="no heads yet"):
        GeometryStream(GeometryModule())

"""The renderer, compared with closed forms and for consistency."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from omnistream.data.sampling import SampleKey
from omnistream.data.world import CLASSES, WorldConfig, WorldScenes, render_clip, render_scene
from omnistream.data.world.compose import compose
from omnistream.data.world.primitives import SHAPES, intersect
from omnistream.data.world.trace import nearest_object

CONFIG = WorldConfig(size=(48, 64), num_frames=4)


def pixel_rays(clip, frame):
    """World origin and directions with z = 1 of all pixels, float64, from the intrinsics and the pose."""
    height, width = clip.valid.shape[1:]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    local = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(clip.intrinsics[frame].astype(np.float64)).T
    pose = clip.camera_to_world[frame].astype(np.float64)
    return pose[:3, 3], local @ pose[:3, :3].T


def scene_of_one(shape, seed=0):
    """An outdoor scene with a single object of this shape."""
    config = replace(
        CONFIG, room_probability=0.0, num_objects=(1, 1), num_buildings=(0, 0), sign_probability=0.0, max_depth=1e4
    )
    for attempt in range(seed, seed + 200):
        scene = compose(np.random.default_rng(attempt), config)
        if [SHAPES[k] for k in scene.shape] == [shape]:
            return scene, config
    raise AssertionError(f"no scene with one {shape}")


def test_same_seed_same_clip_and_other_seed_other_clip():
    first, second, other = render_clip(7, CONFIG), render_clip(7, CONFIG), render_clip(8, CONFIG)
    for name in ("images", "depth", "valid", "instances", "classes", "camera_to_world", "intrinsics"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert not np.array_equal(first.images, other.images)


def test_depth_of_the_ground_and_a_ball_equals_the_closed_form():
    scene, config = scene_of_one("ball")
    clip = render_scene(scene, config)
    for frame in range(CONFIG.num_frames):
        origin, direction = pixel_rays(clip, frame)
        with np.errstate(divide="ignore"):
            ground = np.where(direction[..., 1] > 0, -origin[1] / direction[..., 1], np.inf)
        centre, radius = scene.position[frame, 0].astype(np.float64), float(scene.half[0, 0])
        a, b = (direction**2).sum(-1), direction @ (origin - centre)
        root = b * b - a * (((origin - centre) ** 2).sum() - radius**2)
        ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        expected = np.minimum(ground, ball)
        on_edge = np.abs(root) < 1e-3 * a  # the outermost rays of the ball may differ in float32
        sure = np.isfinite(expected) & (expected < 1e3) & ~on_edge
        assert (clip.instances[frame] == 1)[sure & (ball < ground)].all()
        np.testing.assert_allclose(clip.depth[frame][sure], expected[sure], rtol=2e-4)
        assert not clip.valid[frame][(direction[..., 1] < 0) & ~np.isfinite(ball)].any()


def test_depth_in_a_room_is_the_distance_to_its_walls():
    config = replace(CONFIG, room_probability=1.0, num_objects=(0, 0), sign_probability=0.0)
    clip = render_clip(1, config)
    for frame in range(CONFIG.num_frames):
        origin, direction = pixel_rays(clip, frame)
        bound = np.where(direction > 0, clip.scene.high, clip.scene.low)
        with np.errstate(divide="ignore"):
            expected = ((bound - origin) / direction).min(-1)
        np.testing.assert_allclose(clip.depth[frame], expected, rtol=1e-4)
    assert clip.valid.all()
    assert set(np.unique(clip.classes)) <= {CLASSES.index(name) for name in ("floor", "wall", "ceiling")}


@pytest.mark.parametrize("shape", SHAPES)
def test_hits_lie_on_the_surface_of_the_unit_primitive_and_nothing_is_nearer(shape):
    rng = np.random.default_rng(0)
    origin = rng.standard_normal((3, 1500))
    origin = (origin / np.linalg.norm(origin, axis=0) * 4).astype(np.float32)
    direction = (rng.uniform(-1.3, 1.3, (3, 1500)) - origin).astype(np.float32)
    t = intersect(SHAPES.index(shape), origin, direction).astype(np.float64)

    def outside(p):  # largest violation of the inequalities that define the solid: 0 on its surface
        radial = np.hypot(p[0], p[2])
        return {
            "ball": np.linalg.norm(p, axis=0) - 1,
            "box": np.abs(p).max(0) - 1,
            "cylinder": np.maximum(radial, np.abs(p[1])) - 1,
            "cone": np.maximum(radial - (p[1] + 1) / 2, np.abs(p[1]) - 1),
        }[shape]

    along = np.linspace(0.5, 1.5, 1001)
    inside = np.stack([outside(origin.astype(np.float64) + s * direction) for s in along]).argmin(0)
    hit = np.isfinite(t)
    assert 0.3 < hit.mean() < 1
    np.testing.assert_allclose(outside(origin[:, hit] + t[hit] * direction[:, hit]), 0, atol=1e-4)
    for share in (0.25, 0.5, 0.75, 0.98):  # all points before the hit are outside
        assert (outside(origin[:, hit] + share * t[hit] * direction[:, hit]) > -1e-4).all()
    deepest = outside(origin + along[inside] * direction)
    assert (deepest[~hit] > -3e-3).all()  # what misses never enters


def test_a_scene_with_all_shapes_equals_brute_force_over_objects():
    config = replace(CONFIG, num_objects=(8, 8), sign_probability=1.0, num_buildings=(3, 3), max_depth=1e4)
    for seed in range(6):
        clip = render_clip(seed, config)
        count = clip.instances[0].size
        for frame in (0, 3):
            origin, direction = pixel_rays(clip, frame)
            start = np.repeat(origin[:, None], count, 1).astype(np.float32)
            flat = direction.reshape(-1, 3).T.astype(np.float32)
            t = nearest_object(clip.scene, np.full(count, frame), start, flat).reshape(clip.instances[0].shape)
            on_object = clip.instances[frame] > 0
            # Rays that graze an edge may hit with one rounding and miss with the other.
            assert (np.isfinite(t) != on_object)[t < np.where(clip.valid[frame], clip.depth[frame], 1e9)].mean() < 0.02
            close = np.isclose(clip.depth[frame][on_object], t[on_object], rtol=1e-3)
            assert close.mean() > 0.995


def test_points_of_one_frame_are_found_in_another():
    """Static points of frame i that are visible in frame j have the same depth there, and about the same colour."""
    config = replace(CONFIG, size=(64, 64), moving_probability=0.0, unordered_probability=0.0, room_probability=1.0)
    depth_agrees, colour_error = [], []
    for seed in range(8):
        clip = render_clip(seed, config)
        origin, direction = pixel_rays(clip, 0)
        world = origin + clip.depth[0][..., None] * direction
        pose = clip.camera_to_world[2].astype(np.float64)
        local = (world - pose[:3, 3]) @ pose[:3, :3]
        z = local[..., 2]
        pixel = (local / z[..., None]) @ clip.intrinsics[2].T
        column, row = np.floor(pixel[..., 0]).astype(int), np.floor(pixel[..., 1]).astype(int)
        inside = (z > 0.1) & (column >= 0) & (column < 64) & (row >= 0) & (row < 64)
        there = clip.depth[2][row[inside], column[inside]]
        visible = there > 0.9 * z[inside]
        same = clip.instances[2][row[inside], column[inside]] == clip.instances[0][inside]
        depth_agrees.append((np.abs(there / z[inside] - 1) < 0.06)[visible & same].mean())
        before = clip.images[0].transpose(1, 2, 0)[inside].astype(float)
        after = clip.images[2].transpose(1, 2, 0)[row[inside], column[inside]]
        colour_error.append(np.abs(before - after)[visible & same].mean())
    assert np.mean(depth_agrees) > 0.93  # the rest is slanted: depth varies a lot within half a pixel
    assert np.mean(colour_error) < 12  # textures are sampled at different places within a pixel


def test_supersampling_changes_colours_only_and_shadows_only_darken():
    plain = render_clip(3, CONFIG)
    smooth, dark = render_clip(3, replace(CONFIG, supersample=2)), render_clip(3, replace(CONFIG, shadows=True))
    assert np.array_equal(plain.depth, smooth.depth)
    assert np.array_equal(plain.instances, smooth.instances)
    assert 0 < np.abs(plain.images.astype(int) - smooth.images).mean() < 10
    assert (dark.images <= plain.images).all()
    assert (dark.images < plain.images).any()


def test_ground_truth_is_consistent():
    for seed in range(12):
        clip = render_clip(seed, CONFIG)
        assert np.array_equal(clip.valid, clip.depth > 0)
        assert clip.depth.max() <= CONFIG.max_depth
        rotation = clip.camera_to_world[:, :3, :3].astype(np.float64)
        np.testing.assert_allclose(
            rotation @ rotation.swapaxes(1, 2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-6
        )
        assert np.allclose(np.linalg.det(rotation), 1)
        assert (rotation[:, 1, 1] > 0.8).all()  # upright: the image's down is the world's down
        for k, kind in enumerate(clip.scene.kinds):
            assert (clip.classes[clip.instances == k + 1] == CLASSES.index(kind)).all()
        assert not clip.valid[clip.instances == -1].any()


def test_depth_cannot_be_predicted_by_a_constant():
    """The best constant for depth divided by each clip's mean is a poor fit, and most pixels are valid."""
    shares, valid = [], []
    for seed in range(40):
        clip = render_clip(seed, replace(CONFIG, size=(32, 32)))
        depth = clip.depth[clip.valid]
        shares.append(depth / depth.mean())
        valid.append(clip.valid.mean())
    best = min(
        np.mean([np.abs(c / share - 1).clip(0, None).mean() for share in shares]) for c in np.linspace(0.2, 1.5, 66)
    )
    assert best > 0.33
    assert np.mean(valid) > 0.7


def test_views_differ_and_videos_are_smooth():
    for probability, smooth in ((0.0, True), (1.0, False)):
        steps = []
        for seed in range(10):
            clip = render_clip(seed, replace(CONFIG, num_frames=8, unordered_probability=probability))
            assert clip.is_video is smooth
            steps.append(np.linalg.norm(np.diff(clip.camera_to_world[:, :3, 3], axis=0), axis=-1).mean())
            if not smooth:
                assert np.array_equal(clip.scene.position[0], clip.scene.position[-1])
        assert bool(np.mean(steps) < 0.3) is smooth


def test_field_of_view_is_drawn_from_its_range():
    fovs = []
    for seed in range(30):
        focal = render_clip(seed, replace(CONFIG, size=(16, 24), num_frames=1)).intrinsics[0, 0, 0]
        fovs.append(2 * np.rad2deg(np.arctan(12 / focal)))
    assert CONFIG.fov[0] <= min(fovs) < CONFIG.fov[0] + 8
    assert CONFIG.fov[1] - 8 < max(fovs) <= CONFIG.fov[1] + 1e-3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"difficulty": 1.5}, "difficulty"),
        ({"room_probability": -0.1}, "room_probability"),
        ({"num_objects": (5, 2)}, "num_objects"),
        ({"fov": (60.0, 180.0)}, "fov"),
        ({"size": (4, 64)}, "size"),
    ],
)
def test_impossible_settings_are_refused(changes, field):
    with pytest.raises(ValueError, match=field):
        WorldConfig(**changes)


def test_a_ray_along_a_wall_meets_the_wall_ahead():
    """In this room one ray has a direction of exactly 0 along one axis."""
    sample = WorldScenes(8192, num_frames=4)[SampleKey(0, 1524)]
    assert sample.valid.all()
    assert (sample.depth > 0).all()
    assert torch.isfinite(sample.depth).all()

import math

import numpy as np
import pytest
import torch

from omnistream.cameras import resize_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.transforms import SceneCrop, seeded, square_crop, stack_frames, transform_images


def camera(fx, fy, cx, cy):
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def frame(size=(120, 160), intrinsics=None, depth=None, depth_intrinsics=None, image=None):
    return SceneFrame(
        image=torch.zeros(3, *size, dtype=torch.uint8) if image is None else image,
        depth=torch.ones(size) if depth is None else depth,
        intrinsics=camera(150.0, 140.0, 85.0, 55.0) if intrinsics is None else intrinsics,
        camera_to_world=torch.eye(4, dtype=torch.float64),
        depth_intrinsics=depth_intrinsics,
    )


def unproject(columns, rows, intrinsics):
    """Points at depth 1 seen at pixel centres; [..., 2]."""
    columns, rows = columns.double(), rows.double()
    return torch.stack(
        [
            (columns + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0],
            (rows + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1],
        ],
        -1,
    )


def numbered(size):
    """A depth map whose values identify their pixels."""
    return 1 + torch.arange(math.prod(size), dtype=torch.float32).reshape(size)


def test_worked_example_640x480_to_224():
    # K of OpenCV's convention has (320, 240); with pixel centres at i + 0.5 that is (320.5, 240.5). The frame is scaled
    # to 299 x 224, and 38 columns are cut off on the left.
    (result,) = SceneCrop(224)([frame((480, 640), camera(500.0, 500.0, 320.5, 240.5))])
    expected = camera(233.593750, 233.333333, 111.733594, 112.233333)
    torch.testing.assert_close(result.intrinsics, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(40))
def test_no_point_moves(seed):
    """Image and depth of any sizes and cameras: each depth of the result is that of the stored pixel that shows it.

    The ray of a pixel of the result falls into the stored pixel whose depth it has (within its half size, exactly), or
    outside of the stored map, where the result is invalid.
    """
    rng = np.random.default_rng(seed)
    size, depth_size, crop = (tuple(int(x) for x in rng.integers(8, 90, 2)) for _ in range(3))
    intrinsics = camera(*(rng.uniform(0.6, 1.5, 2) * max(size)), *(rng.uniform(0.3, 0.7, 2) * size[::-1]))
    stored = resize_intrinsics(intrinsics, size, depth_size)
    own = None
    if seed % 2:  # a camera of its own, beside the image's at another resolution
        own = stored * torch.tensor([[1.1, 1, 0.93], [1, 0.95, 1.08], [1, 1, 1]])
        stored = own
    given = frame(size, intrinsics, numbered(depth_size), own)
    (result,) = SceneCrop(crop, enlarge=int(rng.integers(10)))([given])
    assert result.image.shape[1:] == result.depth.shape == result.valid.shape == crop
    rows, columns = torch.meshgrid(torch.arange(crop[0]), torch.arange(crop[1]), indexing="ij")
    points = unproject(columns, rows, result.intrinsics)
    x = points[..., 0] * stored[0, 0] + stored[0, 2]
    y = points[..., 1] * stored[1, 1] + stored[1, 2]
    inside = (x > 1e-9) & (x < depth_size[1] - 1e-9) & (y > 1e-9) & (y < depth_size[0] - 1e-9)
    assert result.valid[inside].all()
    assert not result.valid[(x < -1e-9) | (x > depth_size[1] + 1e-9) | (y < -1e-9) | (y > depth_size[0] + 1e-9)].any()
    source = (result.depth[inside] - 1).long()
    # 0.5 is the definition of the nearest centre; 1e-9 is rounding of float64
    assert (x[inside] - (source % depth_size[1] + 0.5)).abs().max() <= 0.5 + 1e-9
    assert (y[inside] - (source // depth_size[1] + 0.5)).abs().max() <= 0.5 + 1e-9
    if own is None:
        assert inside.all()  # a crop stays inside the image


@pytest.mark.parametrize("factor", [1, 3, 5])
def test_points_are_exactly_the_stored_ones_at_odd_ratios(factor):
    """Where pixel centres coincide, unprojected points are equal, not near."""
    size = 16 * factor, 24 * factor
    depth = torch.rand(size) + 1
    given = frame(size, camera(20.0 * factor, 20.0 * factor, 12.0 * factor, 8.0 * factor), depth)
    (result,) = SceneCrop((16, 24))([given])
    middle = factor // 2
    assert torch.equal(result.depth, depth[middle::factor, middle::factor])
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    before = unproject(columns * factor + middle, rows * factor + middle, given.intrinsics)
    assert torch.equal(unproject(columns, rows, result.intrinsics), before)


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (96, 48), (300, 500)])
@pytest.mark.parametrize("depth_size", [(120, 160), (60, 80), (240, 320), (90, 160)])
def test_a_bright_block_is_where_the_camera_says_it_is(size, depth_size):
    """Image, depth and K move together."""
    height, width, (y0, x0) = 120, 160, (40, 70)
    image, depth = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(depth_size)
    image[:, y0 : y0 + 20, x0 : x0 + 20] = 255
    down, across = depth_size[0] / height, depth_size[1] / width
    depth[round(y0 * down) : round((y0 + 20) * down), round(x0 * across) : round((x0 + 20) * across)] = 2.0
    (result,) = SceneCrop(size)([frame(image=image, depth=depth)])
    ray = torch.linalg.inv(frame().intrinsics) @ torch.tensor([x0 + 10.0, y0 + 10.0, 1.0], dtype=torch.float64)
    expected_x, expected_y, _ = (result.intrinsics @ ray).tolist()
    # tolerance: rounding the edges of the block to whole pixels moves its centre by at most this much
    tolerance = 0.51 * max(1, max(size) / min(depth_size))
    for weight in (result.image[0].float(), result.depth):
        x = (weight.sum(0) * (torch.arange(size[1]) + 0.5)).sum() / weight.sum()
        y = (weight.sum(1) * (torch.arange(size[0]) + 0.5)).sum() / weight.sum()
        assert abs(float(x) - expected_x) < tolerance
        assert abs(float(y) - expected_y) < tolerance
    assert set(result.depth.unique().tolist()) <= {0.0, 2.0}  # no depth is mixed


def test_depth_takes_the_nearest_centre():
    (result,) = SceneCrop(5)([frame((8, 8), camera(8.0, 8.0, 4.0, 4.0), 1 + torch.arange(8.0).expand(8, 8))])
    assert result.depth[0].tolist() == [1, 3, 5, 6, 8]


@pytest.mark.parametrize(("centre", "left"), [(30.0, 0), (90.4, 40), (190.0, 100)])
def test_the_crop_follows_the_principal_point_and_stays_inside(centre, left):
    (result,) = SceneCrop(100)([frame((100, 200), camera(100.0, 100.0, centre, 50.0), numbered((100, 200)))])
    assert int(result.depth[0, 0]) - 1 == left
    assert float(result.intrinsics[0, 2]) == pytest.approx(centre - left)


def test_validity_moves_with_depth():
    depth = numbered((6, 6))
    depth[0], depth[1], depth[2, 3] = 0.0, float("nan"), -1.0
    fields = stack_frames([frame((6, 6), camera(6.0, 6.0, 3.0, 3.0), depth)])
    assert fields["valid"][0].sum(1).tolist() == [0, 0, 5, 6, 6, 6]
    assert fields["depth"][0][~fields["valid"][0]].unique().tolist() == [0.0]
    with pytest.raises(ValueError, match=r"differ in shape: \(6, 6\) and \(5, 6\)"):
        SceneFrame(
            image=torch.zeros(3, 6, 6, dtype=torch.uint8),
            depth=depth,
            valid=torch.ones(5, 6, dtype=torch.bool),
            intrinsics=torch.eye(3),
            camera_to_world=torch.eye(4),
        )


def test_depth_takes_the_size_of_its_image_when_stacked():
    fields = stack_frames([frame((6, 9), camera(6.0, 6.0, 4.5, 3.0), numbered((2, 3)))])
    assert fields["depth"][0, ::3, ::3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert fields["depth"].shape == (1, 6, 9)


def test_frames_without_depth_have_no_valid_pixel():
    bare = SceneFrame(
        image=torch.zeros(3, 8, 8, dtype=torch.uint8),
        depth=None,
        intrinsics=camera(8.0, 8.0, 4.0, 4.0),
        camera_to_world=torch.eye(4),
    )
    fields = stack_frames(SceneCrop(4)([bare]))
    assert fields["depth"].shape == (1, 4, 4)
    assert not fields["valid"].any()


def test_frames_of_different_sizes_need_a_transform():
    frames = [frame((6, 6)), frame((6, 8))]
    with pytest.raises(ValueError, match=r"differ in size: \[\(6, 6\), \(6, 8\)\]; give a transform"):
        stack_frames(frames)
    assert stack_frames(SceneCrop(5)(frames))["images"].shape == (2, 3, 5, 5)


def test_enlarged_crops_show_less():
    given = frame((100, 100), camera(100.0, 100.0, 50.0, 50.0), numbered((100, 100)))
    widths = set()
    for seed in range(150):
        torch.manual_seed(seed)
        first, second = SceneCrop(40, enlarge=20)([given, given])
        assert torch.equal(first.intrinsics, second.intrinsics)
        widths.add(round(40 * 100 / float(first.intrinsics[0, 0])))
    assert max(widths) == 100  # nothing cut off
    assert min(widths) == 67  # 40 of 60 pixels
    with pytest.raises(ValueError, match="expected a positive size and enlarge from 0"):
        SceneCrop(0)


def test_seeded_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    with seeded(torch.tensor(5)):
        first = torch.rand(3)
    with seeded(torch.tensor(5)):
        assert torch.equal(torch.rand(3), first)
    with seeded(torch.tensor(6)):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError, match="inside"), seeded(torch.tensor(5)):
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), state)


def test_square_crops_of_a_clip_are_the_same_in_every_frame():
    clip = (
        torch.arange(80 * 50 * 3, dtype=torch.int64)
        .remainder(251)
        .to(torch.uint8)
        .reshape(3, 80, 50)
        .expand(4, -1, -1, -1)
    )
    cropped = transform_images(square_crop(40, random=True), clip, torch.tensor(1))
    assert cropped.shape == (4, 3, 40, 40)
    assert (cropped == cropped[0]).all()
    assert transform_images(None, clip, torch.tensor(1)) is clip

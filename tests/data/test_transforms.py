import pytest
import torch
from omnistream.data.scenes.transform import CropPlan, apply_to_depth, apply_to_image, apply_to_intrinsics, plan_crop


def camera(fx, fy, cx, cy):
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def test_worked_example_640x480_to_224():
    # K of OpenCV's convention has (320, 240); with pixel centres at i + 0.5 that is (320.5, 240.5)
    intrinsics = camera(500.0, 500.0, 320.5, 240.5)
    plan = plan_crop((480, 640), intrinsics, (224, 224))
    assert (plan.resized, plan.left, plan.top) == ((224, 299), 38, 0)
    result = apply_to_intrinsics(plan, intrinsics)
    expected = camera(233.593750, 233.333333, 111.733594, 112.233333)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (96, 48), (300, 500)])
@pytest.mark.parametrize("enlarge", [0, 7])
def test_results_have_the_size_and_agree_in_place(size, enlarge):
    """A bright block is where the camera says it is: image, depth and K move together."""
    height, width, (y0, x0) = 120, 160, (40, 70)
    image, depth = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(height, width)
    image[:, y0 : y0 + 20, x0 : x0 + 20], depth[y0 : y0 + 20, x0 : x0 + 20] = 255, 2.0
    intrinsics = camera(150.0, 140.0, 85.0, 55.0)
    plan = plan_crop((height, width), intrinsics, size, enlarge)
    result = apply_to_image(plan, image), apply_to_depth(plan, depth), apply_to_intrinsics(plan, intrinsics)
    assert result[0].shape == (3, *size)
    assert result[1].shape == size
    ray = torch.linalg.inv(intrinsics) @ torch.tensor([x0 + 10.0, y0 + 10.0, 1.0])  # through the centre of the block
    expected_x, expected_y, _ = (result[2] @ ray).tolist()
    for weight in (result[0][0].float(), result[1]):
        total = weight.sum()
        x = (weight.sum(0) * (torch.arange(size[1]) + 0.5)).sum() / total
        y = (weight.sum(1) * (torch.arange(size[0]) + 0.5)).sum() / total
        # within the half pixel that rounding the edges of the block to whole pixels can move its centre
        assert abs(float(x) - expected_x) < 0.51
        assert abs(float(y) - expected_y) < 0.51
    assert set(result[1].unique().tolist()) <= {0.0, 2.0}  # no depth is mixed


def test_depth_takes_the_nearest_centre():
    plan = CropPlan(old_size=(8, 8), resized=(5, 5), top=0, left=0, size=(5, 5))
    depth = torch.arange(8.0).expand(8, 8)
    assert apply_to_depth(plan, depth)[0].tolist() == [0, 2, 4, 5, 7]


def test_crop_follows_the_principal_point_and_stays_inside():
    left = plan_crop((100, 200), camera(100.0, 100.0, 30.0, 50.0), (100, 100))
    assert (left.left, left.top) == (0, 0)
    middle = plan_crop((100, 200), camera(100.0, 100.0, 90.4, 50.0), (100, 100))
    assert middle.left == 40
    right = plan_crop((100, 200), camera(100.0, 100.0, 190.0, 50.0), (100, 100))
    assert right.left == 100

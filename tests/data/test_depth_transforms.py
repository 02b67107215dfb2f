"""Transforms of image and depth together."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from omnistream.data.depth_transforms import (
    EIGEN_BOX,
    BoxCrop,
    DepthColor,
    nyuv2_augmentation,
    scaled_box,
)
from omnistream.data.transforms import transform_pair

SEED = torch.tensor(0)


def test_boxes_at_other_sizes():
    rows, columns = scaled_box(EIGEN_BOX, 416, 544)
    assert (rows.start, rows.stop - 1, columns.start, columns.stop - 1) == (39, 407, 34, 509)
    rows, columns = scaled_box(EIGEN_BOX, 480, 640)
    assert (rows, columns) == (slice(45, 471), slice(41, 601))
    assert (471 - 45) * (601 - 41) == 238_560


def test_training_box():
    rows, columns = torch.meshgrid(torch.arange(480), torch.arange(640), indexing="ij")
    image = torch.stack([rows % 256, columns % 256, rows * 0]).byte()
    image, depth = transform_pair(BoxCrop(), image, (rows * 1000.0 + columns), SEED)
    assert image.shape == (3, 427, 565)
    assert depth[0, 0] == 45_043
    assert depth[-1, -1] == 471_607
    assert image[:2, 0, 0].tolist() == [45, 43]


def pair(size=(480, 640)):
    """An image whose red channel tells the depth of its pixel, which is smooth and never 0."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing="ij")
    depth = 1 + rows + columns
    return (depth * 80).round().byte().repeat(3, 1, 1), depth


def test_augmentation_moves_image_and_depth_together():
    image, depth = pair()
    transform = nyuv2_augmentation()
    transform.transforms[-1] = v2.Identity()
    flips = 0
    for seed in range(8):
        moved, its_depth = transform_pair(transform, image, depth, torch.tensor(seed))
        assert moved.shape == (3, 416, 544)
        assert its_depth.shape == (416, 544)
        assert type(moved) is type(its_depth) is torch.Tensor
        known = its_depth > 0
        assert known.float().mean() > 0.9
        inner = known[8:-8, 8:-8]  # rotated images are interpolated with black at their border
        difference = (moved[0].float() / 80 - its_depth)[8:-8, 8:-8][inner].abs()
        assert difference.quantile(0.99) < 0.02
        flips += int(its_depth[208, 100] > its_depth[208, 400])
    assert 0 < flips < 8


def test_rotation_leaves_no_depth_where_it_shows_nothing():
    image, depth = pair((96, 128))
    rotate = v2.RandomRotation((2.5, 2.5))
    moved, its_depth = transform_pair(rotate, image, depth, SEED)
    assert (its_depth == 0).any()
    assert (moved[:, its_depth == 0] == 0).all()


def test_what_is_drawn_depends_on_the_seed_alone():
    image, depth = pair()
    first, again, other = (
        transform_pair(nyuv2_augmentation(), image, depth, torch.tensor(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gamma": (1.0, 1.0), "brightness": (1.25, 1.25), "channel": (1.0, 1.0)}, [125, 250, 12]),
        ({"gamma": (0.9, 0.9), "brightness": (1.0, 1.0), "channel": (1.0, 1.0)}, [63, 118, 8]),
        ({"gamma": (1.1, 1.1), "brightness": (1.0, 1.0), "channel": (1.1, 1.1)}, [174, 255, 14]),
    ],
)
def test_colours(options, expected):
    image = torch.tensor([100, 200, 10], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    colored, depth = DepthColor(**options)(tv_tensors.Image(image), torch.ones(2, 2))
    assert colored[:, 0, 0].tolist() == expected
    assert torch.equal(depth, torch.ones(2, 2))


def test_channels_change_by_themselves():
    image = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    colored, _ = DepthColor(gamma=(1.0, 1.0), brightness=(1.0, 1.0))(tv_tensors.Image(image), torch.ones(1, 1))
    assert len(set(colored.flatten().tolist())) > 1

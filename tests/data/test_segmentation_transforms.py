"""The augmentation of linear segmentation: each step against its rule, and the whole against its order."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from omnistream.data import segmentation_transforms as st
from omnistream.data.label_colours import colour_classes, label_palette
from omnistream.data.transforms import transform_pair


def sample(height=30, width=44, seed=0):
    """Noise, and labels of four vertical stripes with a strip without a class at the top."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (1, 3, height, width), generator=g).to(torch.uint8)
    labels = (torch.arange(width) * 4 // width).to(torch.uint8).repeat(height, 1)
    labels[:2] = 255
    return tv_tensors.Image(image), tv_tensors.Mask(labels)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (300, 400, 512, (512, 683)),
        (400, 300, 512, (683, 512)),
        (480, 640, 256, (256, 341)),
        (427, 640, 700, (700, 1049)),
        (512, 512, 511, (511, 511)),
        (2, 3, 3, (3, 5)),  # 4.5 is rounded up; torchvision would say 4
    ],
)
def test_the_longer_side_is_rounded_half_up(height, width, size, expected):
    assert st.shorter_side_size(height, width, size) == expected


def test_evaluation_resizes_the_image_as_pillow_and_leaves_the_labels():
    image, labels = sample()
    resized, same = st.ResizeShorterSide(20, labels=False)(image, labels)
    pillow = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((29, 20), Image.Resampling.BILINEAR)
    assert torch.equal(resized[0], torch.from_numpy(np.array(pillow)).permute(2, 0, 1))
    assert torch.equal(same, labels)


def test_training_takes_the_nearest_label_and_draws_the_scale():
    image, labels = sample()
    resized, nearest = st.ResizeShorterSide(45)(image, labels)
    assert resized.shape[-2:] == nearest.shape == (45, 66)
    rows, columns = (torch.arange(n) * 2 // 3 for n in (45, 66))
    assert torch.equal(nearest, labels[rows][:, columns])
    resize = st.ResizeShorterSide(20, (0.5, 2.0))
    sizes = [min(resize(image, labels)[1].shape) for _ in range(300)]
    assert (min(sizes), max(sizes)) == (10, 39)
    assert np.mean(sizes) == pytest.approx(24.5, abs=1.5)  # even over 10 to 39


def test_crops_hold_several_classes():
    image, labels = sample(20, 80)
    labels[:, 15:] = 3  # most crops are of this class alone
    labels[:, :15] = 1
    crop = st.RandomLabelCrop(16)
    crop.tries = 200
    for _ in range(10):
        part, classes = crop(image, labels)
        assert part.shape[-2:] == classes.shape == (16, 16)
        counts = torch.bincount(classes.flatten().long())
        assert (counts > 0).sum() > 1
        assert counts.max() < 0.75 * counts.sum()


def test_share_of_a_class_is_of_labelled_pixels_and_below_three_quarters():
    varied = st.RandomLabelCrop(4)._is_varied
    assert varied(torch.tensor([1, 1, 2, 255, 255]))
    assert not varied(torch.tensor([1, 1, 1, 2]))  # exactly three quarters
    assert not varied(torch.tensor([1, 1, 1, 2, 255, 255]))
    assert not varied(torch.tensor([5, 5]))
    assert not varied(torch.full((3,), 255))


def test_ten_tries_and_then_any_crop(monkeypatch):
    crop, (image, labels) = st.RandomLabelCrop(16), sample(20, 80)
    boxes = []
    monkeypatch.setattr(crop, "_box", lambda labels: boxes.append(len(boxes)) or (0, len(boxes) - 1, 16, 16))
    monkeypatch.setattr(crop, "_is_varied", lambda labels: False)
    part, _ = crop(image, labels)
    assert len(boxes) == 11
    assert torch.equal(part, image[..., :16, 10:26])


def test_crops_reach_every_corner_and_keep_shorter_sides():
    image, labels = sample(18, 12)
    tops = {st.RandomLabelCrop(16)._box(labels) for _ in range(60)}
    assert tops == {(0, 0, 16, 12), (1, 0, 16, 12), (2, 0, 16, 12)}
    part, classes = st.RandomLabelCrop(16)(image, labels)
    assert part.shape[-2:] == classes.shape == (16, 12)


def test_padding_is_the_mean_colour_and_no_class():
    image, labels = sample(5, 9)
    padded, classes = st.PadToSquare(12)(image, labels)
    assert padded.shape == (1, 3, 12, 12)
    assert torch.equal(padded[..., :5, :9], image)
    assert torch.equal(classes[:5, :9], labels)
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[:5, :9] = False
    assert padded[0][:, outside].T.unique(dim=0).tolist() == [[124, 116, 104]]
    assert classes[outside].unique().tolist() == [255]
    assert st.PadToSquare(5)(image, labels)[1].shape == (5, 9)  # nothing is cut


@pytest.mark.parametrize(
    ("step", "options", "expected"),
    [
        ("_brighten", {"brightness": 32.0}, lambda x, u: (x.float() + 32 * u).clamp(0, 255).to(torch.uint8)),
        ("_scale", {"contrast": (0.5, 1.5)}, lambda x, u: (x.float() * (1 + 0.5 * u)).clamp(0, 255).to(torch.uint8)),
        ("_saturate", {"saturation": (0.5, 1.5)}, lambda x, u: F.adjust_saturation(x, 1 + 0.5 * u)),
        ("_shift_hue", {"hue": 0.1}, lambda x, u: F.adjust_hue(x, 0.1 * u)),
    ],
)
@pytest.mark.parametrize("u", [-1.0, 0.5, 1.0])
def test_distortions_are_the_published_ones(monkeypatch, step, options, expected, u):
    monkeypatch.setattr(st, "_uniform", lambda low, high: (low + high) / 2 + u * (high - low) / 2)
    image, _ = sample()
    assert torch.equal(getattr(st.PhotometricDistortion(**options), step)(image), expected(image, u))


def test_every_distortion_is_applied_half_of_the_time_and_contrast_first_or_last(monkeypatch):
    distort, seen = st.PhotometricDistortion(), []
    for name in ("_brighten", "_scale", "_saturate", "_shift_hue"):
        monkeypatch.setattr(distort, name, lambda image, name=name: seen[-1].append(name) or image)
    image, labels = sample(4, 4)
    for _ in range(400):
        seen.append([])
        assert torch.equal(distort(image, labels)[1], labels)
    for name in ("_brighten", "_scale", "_saturate", "_shift_hue"):
        assert np.mean([name in steps for steps in seen]) == pytest.approx(0.5, abs=0.1)
    whole = [steps for steps in seen if len(steps) == 4]
    assert {tuple(steps) for steps in whole} == {
        ("_brighten", "_scale", "_saturate", "_shift_hue"),
        ("_brighten", "_saturate", "_shift_hue", "_scale"),
    }


def test_ranges_are_dinov3s_and_the_hue_can_be_mmsegmentations(monkeypatch):
    drawn = []
    monkeypatch.setattr(st, "_uniform", lambda low, high: drawn.append((low, high)) or 0.0)
    image, _ = sample(4, 4)
    distort = st.PhotometricDistortion()
    for step in (distort._brighten, distort._scale, distort._saturate, distort._shift_hue):
        step(image)
    st.PhotometricDistortion(st.MMSEG_HUE)._shift_hue(image)
    assert drawn == [(-32.0, 32.0), (0.5, 1.5), (0.5, 1.5), (-0.5, 0.5), (-0.1, 0.1)]
    with pytest.raises(ValueError, match=r"hue must be from 0 to 0\.5 turns, got 18"):
        st.PhotometricDistortion(18)


def test_the_steps_in_order():
    steps = st.segmentation_augmentation().transforms
    assert [step.size for step in (*steps[:2], steps[4])] == [512] * 3
    assert (steps[0].scale, steps[1].max_share, steps[2].p) == ((0.5, 2.0), 0.75, 0.5)
    assert [type(step).__name__ for step in steps] == [
        "ResizeShorterSide",
        "RandomLabelCrop",
        "RandomHorizontalFlip",
        "PhotometricDistortion",
        "PadToSquare",
    ]


def test_image_and_labels_stay_together():
    """Pixels coloured by their class are still that after everything but the distortion of colours."""
    _, labels = sample(40, 60)
    image = tv_tensors.Image((labels * 60)[None, None].repeat(1, 3, 1, 1))
    augment = st.segmentation_augmentation(32, scale=(1.0, 1.0))
    augment.transforms = [step for step in augment.transforms if not isinstance(step, st.PhotometricDistortion)]
    flipped = set()
    for seed in range(8):
        images, classes = transform_pair(augment, image, labels, torch.tensor(seed))
        inside = classes < 4
        inner = inside[:, 1:-1] & (classes[:, 2:] == classes[:, 1:-1]) & (classes[:, :-2] == classes[:, 1:-1])
        away = torch.zeros_like(inside)
        away[4:, 1:-1] = inner[4:]
        assert (images[0, 0][away].float() - classes[away].float() * 60).abs().max() <= 20  # of interpolation
        known = classes[10][classes[10] < 4].int()
        flipped.add(bool((known.diff() < 0).any()))
    assert flipped == {False, True}


def test_the_same_seed_gives_the_same_crop():
    image, labels = sample()
    augment = st.segmentation_augmentation(16)
    one, two, other = (transform_pair(augment, image, labels, torch.tensor(seed)) for seed in (5, 5, 6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert type(one[0]) is type(one[1]) is torch.Tensor
    assert one[0].dtype == one[1].dtype == torch.uint8
    assert transform_pair(None, image, labels, torch.tensor(0)) == (image, labels)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="positive size and scale"):
        st.ResizeShorterSide(0)
    with pytest.raises(ValueError, match="positive size and scale"):
        st.ResizeShorterSide(5, (2.0, 0.5))


def test_colours_of_labels():
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert label_palette(5).tolist() == expected
    assert label_palette()[[8, 64, 255]].tolist() == [[64, 0, 0], [32, 0, 0], [224, 224, 192]]
    assert len(label_palette().unique(dim=0)) == 256
    shown = colour_classes(torch.tensor([[0, 255], [1, 3]], dtype=torch.uint8))
    assert shown.permute(1, 2, 0).tolist() == [[expected[1], expected[0]], [expected[2], expected[4]]]

import random

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from omnistream.data.videos import ClipAugmentation, SpatialViews


def still(frames=3, height=24, width=36):
    """A clip of one image, repeated."""
    image = torch.randint(0, 256, (3, height // 4, width // 4), dtype=torch.uint8)
    return vision.resize(image, [height, width], antialias=False).expand(frames, -1, -1, -1).clone()


def test_all_frames_are_augmented_alike_and_every_clip_anew():
    augment, clip, found = ClipAugmentation(16, erase=0), still(), []
    for _ in range(30):
        frames = augment(clip)
        assert frames.shape == (3, 3, 16, 16)
        assert frames.dtype == torch.uint8
        assert all(torch.equal(frame, frames[0]) for frame in frames)
        found.append(frames[0])
    assert len({tuple(frame.flatten().tolist()) for frame in found}) == 30


def test_choices_follow_torchs_generator_and_leave_the_others_alone():
    augment, clip = ClipAugmentation(16), still()
    random.seed(1)
    np.random.seed(1)
    before = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(torch.stack([augment(clip) for _ in range(4)]))
    assert torch.equal(*found)
    assert (random.random(), np.random.rand()) == before


def test_randaugment_is_the_published_policy():
    augment = ClipAugmentation()
    assert augment.colours.num_layers == 4
    assert len(augment.colours.ops) == 15
    op = augment.colours.ops[0]
    assert (op.prob, op.magnitude, op.magnitude_std) == (0.5, 7, 0.5)
    assert op.kwargs["fillcolor"] == (128, 128, 128)
    names = {op.name for op in augment.colours.ops}
    assert {"ColorIncreasing", "PosterizeIncreasing", "SolarizeIncreasing", "TranslateXRel"} <= names
    assert augment.crop.scale == (0.08, 1.0)
    assert augment.crop.ratio == (3 / 4, 4 / 3)
    assert augment.erase == 0.25


def test_there_is_no_flip():
    left = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    left[..., :10] = 255
    crop = ClipAugmentation(20, scale=(1.0, 1.0), ratio=(1.0, 1.0), rand_augment=None, erase=0)
    assert all(torch.equal(crop(left), left) for _ in range(20))


def test_one_box_is_erased_in_all_frames_with_noise_of_its_own():
    crop = ClipAugmentation(64, scale=(1.0, 1.0), ratio=(1.0, 1.0), rand_augment=None, erase=0.25)
    clip = torch.full((3, 3, 64, 64), 255, dtype=torch.uint8)
    erased, noise = 0, []
    for _ in range(200):
        changed = crop(clip.clone())
        inside = (changed != 255).any(1)
        if not inside.any():
            continue
        erased += 1
        rows, columns = inside.any(0).any(1).nonzero(), inside.any(0).any(0).nonzero()
        box = changed[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert 0.015 < box[0, 0].numel() / 64**2 < 0.36
        assert (inside[0] & inside[1]).sum() > 0.9 * box[0, 0].numel()
        assert not torch.equal(box[0], box[1])
        noise.append(box[:, 1].flatten().float() / 255)
    assert 30 < erased < 70
    middle = torch.cat(noise).median()
    assert float(middle) == pytest.approx(0.456, abs=0.01)
    spread = torch.cat(noise).quantile(torch.tensor([0.16, 0.84])) - middle
    assert spread.abs().mean() == pytest.approx(0.224, abs=0.02)


def test_crops_are_resized_without_smoothing():
    """As V-JEPA 2 does; every second pixel of a fine pattern would be grey otherwise."""
    frames = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    crop = ClipAugmentation(10, scale=(1.0, 1.0), ratio=(1.0, 1.0), rand_augment=None, erase=0)
    expected = torch.nn.functional.interpolate(frames.float(), size=(10, 10), mode="bilinear")
    assert (crop(frames).float() - expected).abs().max() <= 1


def test_erased_boxes_have_the_published_sizes_and_colours():
    crop = ClipAugmentation(120, scale=(1.0, 1.0), ratio=(1.0, 1.0), rand_augment=None, erase=1.0)
    areas, aspects, colours = [], [], []
    for _ in range(300):
        inside = (changed := crop(torch.full((1, 3, 120, 120), 255, dtype=torch.uint8)))[0].ne(255).any(0)
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        areas.append(height * width / 120**2)
        aspects.append(height / width)
        box = changed[0, :, rows.min() : rows.min() + height, columns.min() : columns.min() + width]
        colours.append(box.flatten(1).float() / 255)
    assert 0.018 < min(areas) < 0.03
    assert 0.3 < max(areas) < 0.35
    assert 0.26 < min(aspects) < 0.4
    assert 2.5 < max(aspects) < 3.7
    middle = torch.cat(colours, 1).median(1).values
    torch.testing.assert_close(middle, torch.tensor([0.485, 0.456, 0.406]), atol=0.01, rtol=0)
    low = torch.stack([channel.kthvalue(int(0.16 * len(channel))).values for channel in torch.cat(colours, 1)])
    torch.testing.assert_close(middle - low, torch.tensor([0.229, 0.224, 0.225]), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("size", "starts"), [((240, 427), [0, 99, 198]), ((256, 256), [0, 0, 0]), ((427, 240), [0, 99, 198])]
)
def test_three_views_along_the_longer_side(size, starts):
    clip = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    views = SpatialViews(256, 3)(clip)
    assert views.shape == (3, 1, 3, 256, 256)
    resized = torch.nn.functional.interpolate(
        clip.float(), size=[max(256, int(256 * side / min(size))) for side in size], mode="bilinear"
    )
    for view, start in zip(views, starts, strict=True):
        window = resized[..., start : start + 256, :] if size[0] > size[1] else resized[..., start : start + 256]
        assert (view.float() - window).abs().max() <= 1


def test_one_view_is_the_centre_of_a_larger_frame():
    clip = torch.randint(0, 256, (2, 3, 240, 427), dtype=torch.uint8)
    (view,) = SpatialViews(256, 1)(clip)
    resized = vision.resize(clip, [292], antialias=False)
    assert resized.shape[-2:] == (292, 519)
    assert torch.equal(view, resized[..., 18:274, 132:388])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="size and num_views must be positive"):
        SpatialViews(256, 0)
    with pytest.raises(ValueError, match="erase a probability"):
        ClipAugmentation(16, erase=2.0)
    with pytest.raises(ValueError, match="size must be positive"):
        ClipAugmentation(0)
    assert ClipAugmentation(1, rand_augment=None)(still()).shape == (3, 3, 1, 1)

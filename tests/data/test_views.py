import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torch.utils.data import DataLoader, Dataset

from omnistream.boxes import Box
from omnistream.data.batch import FrameClip
from omnistream.data.sampling import EndlessBatchSampler, SampleKey, sample_key, sample_seed
from omnistream.data.views import CropConfig, MultiCropDataset, crop_resize, random_box

CROPS = CropConfig(global_size=32, local_size=16, patch_size=8)


class Clips(Dataset):
    """Noise of different sizes; all frames of a clip are the same image."""

    def __init__(self, frames: int = 1, length: int = 6) -> None:
        self.frames, self.length = frames, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | SampleKey) -> FrameClip:
        index = sample_key(key).index
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (1, 3, 40 + index, 56), dtype=torch.uint8, generator=generator)
        return FrameClip(
            images=image.expand(self.frames, -1, -1, -1),
            label=torch.tensor(-1),
            name=f"clip {index}",
            seed=sample_seed(5, key),
        )


def test_views_have_the_requested_shapes_and_one_box_for_all_frames():
    sample = MultiCropDataset(Clips(frames=3), replace(CROPS, num_local=4), seed=1)[2]
    assert sample.global_crops.shape == (2, 3, 3, 32, 32)
    assert sample.local_crops.shape == (4, 3, 3, 16, 16)
    assert sample.global_crops.dtype == sample.local_crops.dtype == torch.uint8
    for crops in (sample.global_crops, sample.local_crops):
        assert torch.equal(crops, crops[:, :1].expand_as(crops))
        assert not torch.equal(crops[0], crops[1])


def test_views_follow_from_seed_epoch_and_index():
    dataset = MultiCropDataset(Clips(), CROPS, seed=1)
    first, again = dataset[SampleKey(3, 2)], MultiCropDataset(Clips(), CROPS, seed=1)[SampleKey(3, 2)]
    assert torch.equal(first.global_crops, again.global_crops)
    for other in (dataset[SampleKey(4, 2)], MultiCropDataset(Clips(), CROPS, seed=2)[SampleKey(3, 2)]):
        assert not torch.equal(first.global_crops, other.global_crops)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_agrees_with_torchvision(flip):
    images, box = Clips()[3].images, Box(7, 5, 28, 35)
    expected = TF.resized_crop(images, 5, 7, 30, 21, [24, 24], TF.InterpolationMode.BICUBIC, antialias=True)
    expected = TF.hflip(expected) if flip else expected
    assert (crop_resize(images, box, 24, flip).int() - expected.int()).abs().max() <= 1  # rounding


def test_boxes_have_the_requested_areas_and_aspect_ratios():
    rng = np.random.default_rng(0)
    boxes = [random_box(rng, (400, 600), (0.05, 0.32), (3 / 4, 4 / 3)) for _ in range(2000)]
    areas = np.array([(box.x2 - box.x1) * (box.y2 - box.y1) for box in boxes]) / (400 * 600)
    aspects = np.array([(box.x2 - box.x1) / (box.y2 - box.y1) for box in boxes])
    assert 0.045 < areas.min() < 0.06
    assert 0.31 < areas.max() < 0.325
    assert areas.mean() == pytest.approx(0.185, abs=0.01)
    assert np.median(aspects) == pytest.approx(1.0, abs=0.03)
    assert all(box.y2 <= 400 and box.x2 <= 600 for box in boxes)
    assert len({(box.y1, box.x1) for box in boxes}) > 1900


def test_extreme_images_give_the_central_box():
    box = random_box(np.random.default_rng(0), (20, 400), (0.9, 1.0), (3 / 4, 4 / 3))
    assert box == Box(186, 0, 213, 20)


def test_masks_spread_over_a_batch_of_neighbours():
    dataset = MultiCropDataset(Clips(length=4), CROPS)
    batch = dataset.collate([dataset[i] for i in range(4)])
    assert batch.global_crops.shape == (4, 2, 1, 3, 32, 32)
    assert batch.masks.shape == (4, 2, 1, 4, 4)
    assert sorted(batch.masks.flatten(0, 1).sum((1, 2, 3)).tolist()) == [0, 0, 0, 0, 3, 4, 6, 8]
    assert torch.equal(batch.masks[2], dataset[2].masks)
    other = dataset.collate([dataset[SampleKey(1, i)] for i in range(4)])
    assert not torch.equal(batch.masks, other.masks)

    clips = MultiCropDataset(Clips(frames=2), CROPS)
    batch = clips.collate([clips[i] for i in range(4)])
    assert batch.masks.shape == (4, 2, 2, 4, 4)
    assert batch.masks.flatten(2).any(2).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_processes_share_the_masks_of_the_global_batch(frames):
    dataset = MultiCropDataset(Clips(frames=frames), CROPS)

    def batches(batch_size, **options):
        keys = itertools.islice(EndlessBatchSampler(6, batch_size, seed=3, **options), 5)
        return [dataset.collate([dataset[key] for key in batch]).masks for batch in keys]

    whole = batches(4)
    shares = [batches(2, rank=rank, num_replicas=2) for rank in range(2)]
    for one, *two in zip(whole, *shares, strict=True):
        assert torch.equal(one, torch.cat(two))
        if frames == 1:  # as the official collate function assigns them to the batch of one process
            assert sorted(one.flatten(0, 1).sum((1, 2, 3)).tolist()) == [0, 0, 0, 0, 3, 4, 6, 8]
    assert not torch.equal(whole[0], whole[1])


def test_workers_do_not_change_the_batches():
    dataset = MultiCropDataset(Clips(), CROPS)
    loaded = []
    for workers in (0, 1):
        loader = DataLoader(
            dataset,
            batch_sampler=EndlessBatchSampler(6, 3, seed=1),
            collate_fn=dataset.collate,
            num_workers=workers,
        )
        iterator = iter(loader)
        loaded.append([next(iterator) for _ in range(3)])
    for one, other in zip(*loaded, strict=True):
        assert torch.equal(one.global_crops, other.global_crops)
        assert torch.equal(one.masks, other.masks)
    assert pickle.loads(pickle.dumps(dataset)).crops == CROPS


def test_larger_gram_crops_are_for_images_only():
    crops = replace(CROPS, gram_size=64)
    images, clips = MultiCropDataset(Clips(), crops), MultiCropDataset(Clips(frames=2), crops)
    batch = images.collate([images[0], images[1]])
    assert batch.global_crops.shape[-1] == 64
    assert batch.masks.shape[-1] == 4
    assert clips[0].global_crops.shape[-1] == 32


def test_no_local_crops():
    dataset = MultiCropDataset(Clips(), replace(CROPS, num_local=0))
    assert dataset[0].local_crops.shape == (0, 1, 3, 16, 16)


def test_real_photos_and_no_flip(sample_data):
    from PIL import Image

    path = sorted((sample_data).rglob("*.jp*g"))[0]
    image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
    whole = Box(0, 0, image.shape[-1], image.shape[-2])
    view = crop_resize(image, whole, 64, flip=False)
    # Averages survive antialiased resizing; without antialiasing they would not.
    assert view.float().mean((0, 2, 3)).sub(image.float().mean((0, 2, 3))).abs().max() < 2


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="local_size must be a positive multiple of patch_size=16, got 100"):
        CropConfig(local_size=100)
    with pytest.raises(ValueError, match="num_global"):
        CropConfig(num_global=1)

"""The data sets: shapes, splits, labels, keys."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from omnistream.data.sampling import SampleKey
from omnistream.data.world import WorldActions, WorldCaptions, WorldConfig, WorldFrames, WorldScenes
from omnistream.data.world.datasets import SPLITS, clip_seed

SMALL = {"num_samples": 24, "size": (24, 32)}


def test_samples_have_the_documented_shapes_and_types():
    scene = WorldScenes(**SMALL, num_frames=3)[0]
    assert (scene.images.shape, scene.images.dtype) == ((3, 3, 24, 32), torch.uint8)
    assert (scene.depth.shape, scene.depth.dtype) == ((3, 24, 32), torch.float32)
    assert (scene.valid.shape, scene.valid.dtype) == ((3, 24, 32), torch.bool)
    assert (scene.intrinsics.shape, scene.intrinsics.dtype) == ((3, 3, 3), torch.float32)
    assert (scene.camera_to_world.shape, scene.camera_to_world.dtype) == ((3, 4, 4), torch.float32)
    assert (scene.is_metric.item(), scene.is_video.dtype, scene.seed.dtype) == (True, torch.bool, torch.int64)
    frames = WorldFrames(**SMALL)[0]
    assert (frames.images.shape, frames.label.item()) == ((1, 3, 24, 32), -1)
    actions = WorldActions(**SMALL, num_frames=4)[5]
    assert (actions.images.shape, actions.label.item()) == ((4, 3, 24, 32), 5)
    assert WorldActions.classes[5] == "recede"


def test_splits_are_disjoint_and_seeds_differ():
    seeds = {split: {clip_seed(0, split, i) for i in range(3000)} for split in SPLITS}
    assert all(len(drawn) == 3000 for drawn in seeds.values())
    assert all(value % 3 == SPLITS.index(split) for split, drawn in seeds.items() for value in drawn)
    assert not seeds["train"] & {clip_seed(1, "train", i) for i in range(3000)}


def test_training_draws_new_scenes_each_epoch_and_validation_does_not():
    for split, same in (("train", False), ("val", True), ("test", True)):
        data = WorldScenes(**SMALL, num_frames=1, split=split)
        first, again = data[SampleKey(0, 3)].images, data[SampleKey(1, 3)].images
        assert torch.equal(first, again) is same
        assert torch.equal(first, data[3].images)


def test_labels_are_balanced_and_change_with_the_epoch():
    data = WorldActions(num_samples=36, size=(16, 16), num_frames=4)
    assert set(Counter(data[i].label.item() for i in range(36)).values()) == {3}
    assert data[SampleKey(1, 0)].label.item() == 1


def test_workers_give_the_samples_of_the_main_process():
    data = WorldCaptions(**SMALL, tasks=("caption", "ocr"))
    alone = [data[i] for i in range(8)]
    loader = DataLoader(data, batch_size=4, num_workers=1, collate_fn=data.collate)
    batches = [batch for batch, _ in zip(loader, range(2), strict=False)]
    assert torch.equal(torch.cat([batch.images for batch in batches]), torch.stack([sample.images for sample in alone]))
    assert [target for batch in batches for target in batch.target] == [sample.target for sample in alone]


def test_caption_tasks_follow_their_weights_and_carry_boxes():
    data = WorldCaptions(num_samples=80, size=(64, 64), task_weights=(2, 1, 1, 0))
    targets = [data[i].target for i in range(80)]
    tasks = Counter(target.task for target in targets)
    assert tasks["region"] == 0
    assert tasks["caption"] > tasks["ocr"] > 8
    for target in targets:
        assert bool(target.regions) is (target.task != "caption")
        for _, (x1, y1, x2, y2) in target.regions:
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1


@pytest.mark.usefixtures("no_type_checks")
def test_errors_name_the_wrong_argument():
    with pytest.raises(ValueError, match="split"):
        WorldScenes(split="dev")
    with pytest.raises(ValueError, match="num_samples"):
        WorldScenes(num_samples=0)
    with pytest.raises(ValueError, match="tasks: expected some of"):
        WorldCaptions(tasks=("captions",))
    with pytest.raises(ValueError, match="task_weights"):
        WorldCaptions(tasks=("caption",), task_weights=(1, 2))
    with pytest.raises(IndexError):
        WorldScenes(num_samples=2, size=(16, 16))[2]


def test_a_task_that_no_scene_allows_is_an_error():
    data = WorldCaptions(4, size=(16, 16), config=WorldConfig(num_objects=(0, 0)), tasks=("grounding",))
    with pytest.raises(RuntimeError, match="no scene allows the task 'grounding'"):
        data[0]


def test_images_are_neither_dark_nor_flat():
    images = np.stack([WorldFrames(num_samples=20, size=(48, 48))[i].images.numpy() for i in range(20)])
    assert 70 < images.mean() < 180
    assert images.std(axis=(-1, -2)).mean() > 20

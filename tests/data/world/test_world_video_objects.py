import pytest
import torch

from omnistream.data.world import WorldConfig, WorldVideoObjects, render_clip
from omnistream.data.world.datasets import clip_seed

SMALL = {"num_frames": 4, "size": (32, 48)}


def test_masks_are_those_of_the_largest_objects_of_the_first_frame():
    for index in range(4):
        video = WorldVideoObjects(8, max_objects=2, **SMALL)[index]
        seed = int(video.name.split("/")[-1])
        clip = render_clip(seed, WorldConfig(num_frames=4, size=(32, 48), unordered_probability=0.0))
        assert torch.equal(video.images, torch.from_numpy(clip.images))
        assert video.frame_names == ["00000", "00001", "00002", "00003"]
        instances = torch.from_numpy(clip.instances)
        areas = [int((instances[0] == k).sum()) for k in range(1, int(instances.max()) + 1)]
        order = sorted(range(len(areas)), key=lambda k: -areas[k])[:2]
        kept = [k for k in order if areas[k] >= 0.01 * 32 * 48]
        assert video.num_objects == len(kept) == int(video.masks[0].max()) > 0
        for number, k in enumerate(kept, start=1):
            assert torch.equal(video.masks == number, instances == k + 1)


def test_samples_depend_on_seed_and_index_alone():
    first, again = WorldVideoObjects(4, **SMALL), WorldVideoObjects(4, **SMALL)
    assert torch.equal(first[2].images, again[2].images)
    assert first[2].name != first[3].name
    assert {WorldVideoObjects(4, split, **SMALL)[0].name for split in ("train", "val", "test")} == {
        f"world/{split}/{clip_seed(0, split, 0, salt=20)}" for split in ("train", "val", "test")
    }
    assert not torch.equal(WorldVideoObjects(4, seed=1, **SMALL)[2].images, first[2].images)


def test_another_scene_is_drawn_where_no_object_is_large_enough():
    videos = WorldVideoObjects(3, min_share=0.2, **SMALL)
    for index in range(3):
        assert (videos[index].masks[0] == 1).float().mean() >= 0.2
    with pytest.raises(RuntimeError, match="no scene shows an object on 99%"):
        WorldVideoObjects(1, min_share=0.99, num_frames=3, size=(8, 8))[0]


def test_too_few_frames_or_objects_are_refused():
    for wrong in ({"num_frames": 2}, {"max_objects": 0}):
        with pytest.raises(ValueError, match="num_frames >= 3 and max_objects >= 1"):
            WorldVideoObjects(**wrong)

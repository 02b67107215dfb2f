"""Images of the world with their depth."""

import torch

from omnistream.data.sampling import SampleKey
from omnistream.data.world import WorldConfig, WorldDepth, WorldScenes


def test_images_are_those_of_the_scenes():
    config = WorldConfig(room_probability=0.0, max_depth=8.0)
    data, scenes = (kind(4, split="test", size=(32, 48), config=config) for kind in (WorldDepth, one_frame))
    assert len(data) == 4
    for index in range(4):
        sample, scene = data[index], scenes[index]
        assert sample.image.shape == (3, 32, 48)
        assert torch.equal(sample.image, scene.images[0])
        assert torch.equal(sample.depth > 0, scene.valid[0])
        assert torch.equal(sample.depth[scene.valid[0]], scene.depth[0][scene.valid[0]])
        assert sample.depth.max() <= 8
        assert sample.name == scene.name


def one_frame(*args, **kwargs):
    return WorldScenes(*args, num_frames=1, **kwargs)


def test_training_shows_new_scenes_in_every_epoch():
    train, test = WorldDepth(2), WorldDepth(2, split="test")
    assert not torch.equal(train[SampleKey(0, 1)].image, train[SampleKey(1, 1)].image)
    assert torch.equal(test[SampleKey(0, 1)].image, test[SampleKey(1, 1)].image)

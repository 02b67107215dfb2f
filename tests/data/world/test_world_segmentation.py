import numpy as np
import pytest
import torch

from omnistream.data.sampling import SampleKey
from omnistream.data.segmentation_transforms import segmentation_augmentation
from omnistream.data.world import CLASSES, WorldConfig, WorldSegmentation, render_clip
from omnistream.data.world.datasets import clip_seed


def test_labels_are_the_classes_of_what_is_seen():
    data = WorldSegmentation(6, size=(32, 48))
    for index in range(6):
        clip = render_clip(clip_seed(0, "train", index), data.config)
        sample = data[index]
        assert np.array_equal(sample.images.numpy(), clip.images)
        assert np.array_equal(sample.labels.numpy(), clip.classes[0])
        for thing in np.unique(clip.instances[clip.instances > 0]):
            kind = CLASSES.index(clip.scene.kinds[thing - 1])
            assert (sample.labels.numpy()[clip.instances[0] == thing] == kind).all()
    assert data.classes == CLASSES


def test_words_over_the_image_have_no_class():
    data = WorldSegmentation(3, size=(48, 64), config=WorldConfig(overlay_probability=1.0))
    clip = render_clip(clip_seed(0, "train", 0), data.config)
    expected = clip.classes[0].copy()
    expected[clip.overlay.plate] = 255
    assert np.array_equal(data[0].labels.numpy(), expected)
    assert (expected == 255).any()


def test_splits_are_disjoint_and_training_is_new_in_every_epoch():
    def name(split, epoch):
        return WorldSegmentation(4, split, size=(16, 16))[SampleKey(epoch, 1)].name

    assert name("val", 0) == name("val", 1)
    assert name("train", 0) != name("train", 1)
    assert len({name(split, 0).split("/")[-1] for split in ("train", "val", "test")}) == 3


def test_transform_is_of_image_and_labels():
    data = WorldSegmentation(2, size=(32, 48), transform=segmentation_augmentation(24))
    sample = data[0]
    assert sample.images.shape == (1, 3, 24, 24)
    assert sample.labels.shape == (24, 24)
    assert torch.equal(sample.images, data[0].images)
    with pytest.raises(IndexError):
        data[2]

"""Sizes of the images that a model sees, and choices of frames and sequences that are refused."""

from pathlib import Path

import pytest
import torch

from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.scenes import SceneReader, SceneSequence


def published_size(height, width, long_side):
    """The sides of CUT3R's load_images_for_eval, by its own way of halves."""
    resized = [round(side * long_side / max(height, width)) for side in (width, height)]
    halves = [2 * (side // 2) // 16 * 8 for side in resized]
    if resized[0] == resized[1]:
        halves[1] = 3 * halves[0] / 4
    return int(2 * halves[1]), int(2 * halves[0])


@pytest.mark.parametrize("long_side", [512, 768, 1024, 320])
@pytest.mark.parametrize(
    "size", [(436, 1024), (480, 640), (375, 1242), (513, 520), (968, 1296), (512, 512), (640, 480)]
)
def test_sizes_are_the_published_ones(size, long_side):
    assert ModelImages(long_side=long_side).sizes(*size)[1] == published_size(*size, long_side)


def test_only_an_image_that_is_square_itself_becomes_wide():
    images = ModelImages(long_side=520)
    assert images.sizes(513, 520) == ((513, 520), (512, 512)) != images.sizes(520, 520)
    assert images.sizes(520, 520)[1] == (384, 512)


def frame(height, width):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return SceneFrame(image=image, depth=None, intrinsics=torch.eye(3), camera_to_world=torch.eye(4))


def test_a_side_too_short_to_be_cut_is_refused():
    with pytest.raises(ValueError, match="1024x436 pixels become 32x14, which cannot be cut to a multiple of 16"):
        ModelImages(long_side=32, fit="crop")(frame(436, 1024))
    assert ModelImages(long_side=38, fit="crop")(frame(436, 1024)).size == (16, 32)
    assert ModelImages(long_side=32, fit="resize")(frame(436, 1024)).size == (16, 32)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"stop": 0}, {"stride": 0}, {"start": -1}, {"count": -1}])
def test_choices_without_frames_are_refused(wrong):
    with pytest.raises(ValueError, match="stop, stride and count >= 1"):
        FrameChoice(**wrong)
    assert list(FrameChoice(start=1, stop=6, stride=2, count=2).positions(9)) == [1, 3]


class Named(SceneReader):
    """Sequences `a` and `b`, which are also called `x_a` and `x_b`."""

    expected = "nothing"

    def __init__(self):
        self.root, self.broken = Path("memory"), []
        self._sequences = [SceneSequence(name, ["0"]) for name in ("a", "b")]

    def published_name(self, name):
        return name.removeprefix("x_")

    def open_sequence(self, path):
        raise NotImplementedError

    def read(self, sequence, positions):
        return [frame(4, 4) for _ in positions]


def test_a_sequence_that_is_named_twice_is_refused():
    assert len(GeometryVideos(Named(), ["a", "x_b"])) == 2
    with pytest.raises(ValueError, match="a is named more than once"):
        GeometryVideos(Named(), ["a", "b", "x_a"])

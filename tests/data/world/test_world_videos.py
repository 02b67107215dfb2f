"""Long videos of the procedural world, read frame by frame."""

import pickle

import numpy as np
import pytest
import torch

from omnistream.data.geometry_videos import FrameChoice, GeometryVideos
from omnistream.data.world import WorldConfig, WorldVideos, render_scene
from omnistream.data.world.compose import compose
from omnistream.data.world.motion import clip_time


@pytest.fixture(scope="module")
def reader():
    return WorldVideos(3, 20, frames_per_pass=6, size=(16, 24))


def test_a_frame_is_that_of_the_whole_video(reader):
    sequence = reader.index()[1]
    clip = render_scene(compose(np.random.default_rng(reader._seeds[sequence.name]), reader.config), reader.config)
    assert clip.images.shape == (20, 3, 16, 24)
    for frame, position in zip(reader.read(sequence, [0, 13, 4]), (0, 13, 4), strict=True):
        assert torch.equal(frame.image, torch.from_numpy(clip.images[position]))
        assert torch.equal(frame.depth, torch.from_numpy(clip.depth[position]))
        assert torch.equal(frame.valid, torch.from_numpy(clip.valid[position]))
        assert torch.equal(frame.camera_to_world, torch.from_numpy(clip.camera_to_world[position]))
        assert torch.equal(frame.intrinsics, torch.from_numpy(clip.intrinsics[position]))


def test_videos_differ_and_are_always_the_same(reader):
    assert [sequence.name for sequence in reader.index()] == ["test/000", "test/001", "test/002"]
    again = pickle.loads(pickle.dumps(reader))
    first = [reader.read(sequence, [3])[0].image for sequence in reader.index()]
    assert not torch.equal(first[0], first[1])
    for image, sequence in zip(first, again.index(), strict=True):
        assert torch.equal(again.read(sequence, [3])[0].image, image)
    other = WorldVideos(3, 20, frames_per_pass=6, size=(16, 24), split="val")
    assert not torch.equal(other.read(other.index()[0], [3])[0].image, first[0])
    assert other.index_options() == reader.index_options()  # the names of their videos differ


def test_the_camera_swings_and_never_comes_back_to_the_same_place(reader):
    config = WorldConfig(num_frames=400, frames_per_pass=6)
    place = clip_time(config)
    assert place[0] == -0.5
    assert np.abs(place).max() <= 0.5
    assert (place[:3] < 0).all()
    assert (place[4:8] > 0).all()
    assert (place[9:12] < 0).all()
    gaps = np.diff(np.sort(place))
    assert gaps.min() > 1e-9
    positions = np.stack([reader.read(reader.index()[2], [t])[0].camera_to_world[:3, 3] for t in range(20)])
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).min() > 1e-4
    assert np.linalg.norm(positions - positions[0], axis=1).max() < reader.config.camera_motion


def test_clips_of_one_pass_are_as_they_were():
    assert clip_time(WorldConfig(num_frames=5)).tolist() == [-0.5, -0.25, 0, 0.25, 0.5]
    assert clip_time(WorldConfig(num_frames=1, frames_per_pass=6)).tolist() == [0]


def test_they_are_the_videos_of_an_evaluation(reader):
    videos = GeometryVideos(reader, ["test/002"], FrameChoice(stride=5), images=None)
    (video,) = [videos[index] for index in range(len(videos))]
    frames = list(video.frames())
    assert len(frames) == len(video) == 4
    assert frames[1].image.shape == (3, 16, 24)
    assert torch.equal(frames[1].image, reader.read(reader.index()[2], [5])[0].image)
    assert "frames_per_pass=6" in str(video.settings()["options"])


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_videos: expected at least 1, got 0"):
        WorldVideos(0)
    with pytest.raises(ValueError, match=r"WorldConfig.frames_per_pass: expected at least 2, got 1"):
        WorldVideos(1, frames_per_pass=1)
    reader = WorldVideos(1)
    with pytest.raises(FileNotFoundError, match="the procedural world is rendered"):
        reader.open_sequence(reader.root)
    assert list(reader.find()) == []

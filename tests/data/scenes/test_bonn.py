"""BONN: which depth each image gets, by time and by index, and where frames stand in a sequence."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import Room
from tum_files import depth_number, forward, image_number, stamp_name, write_recording

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.scenes import BONN, ClipSampling, SceneClips, SceneCrop

START = 1548266530.0
NAME = "rgbd_bonn_balloon2"


def times(rate, count, offset=0.0):
    return [round(START + offset + i / rate, 6) for i in range(count)]


@pytest.fixture
def drifting(tmp_path):
    """160 images at 29.9 Hz, and depth at 30.0 Hz that starts 12 ms earlier and lacks its 102nd map."""
    depths = times(30.0, 162, -0.012)
    del depths[101]
    write_recording(tmp_path / "rgbd_bonn_dataset" / NAME, times(29.9, 160), depths, times(100, 540))
    return tmp_path, depths


def chosen_depths(root, pairing, positions):
    reader = BONN(root, pairing=pairing)
    frames = reader.read(reader.index()[0], positions)
    assert [image_number(frame.image) for frame in frames] == list(positions)
    return [depth_number(frame.depth) for frame in frames]


def test_depth_by_time_and_by_index(drifting):
    root, depths = drifting
    images = times(29.9, 160)
    by_time, by_index = (chosen_depths(root, pairing, range(160)) for pairing in ("timestamp", "index"))
    assert by_index == list(range(160))
    for image, depth in zip(images, by_time, strict=True):
        distances = [abs(image - other) for other in depths]
        closest = int(np.argmin(distances))
        assert depth == (closest if distances[closest] < 0.02 else None)
    # the clocks drift by 0.11 ms per frame: the nearest map is one further from image 42 on, where the 12 ms have
    # become half of 33 ms; that of image 100 is missing, and from then on the count of maps is one lower
    assert by_time[41:43] == [41, 43]
    assert by_time[99:102] == [100, None, 101]
    assert by_time[139] == 139
    assert 0.022 < images[99] - depths[99] < 0.024  # what the published pairing compares


@pytest.mark.parametrize("pairing", ["index", "timestamp"])
def test_the_published_choice_of_frames(drifting, pairing):
    """`[30:140]` of the sorted images, in both pairings, also where an image has no depth."""
    root, _ = drifting
    videos = GeometryVideos(
        BONN(root, pairing=pairing), "depth", FrameChoice(start=30, stop=140), ModelImages(long_side=16)
    )
    assert (len(videos), videos.missing) == (1, 4)
    assert videos.names == ["balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous"]
    frames = list(videos[0].frames())
    assert len(frames) == 110
    assert [image_number(frame.image) for frame in frames] == list(range(30, 140))
    assert [frame.depth is None for frame in frames] == [pairing == "timestamp" and i == 100 for i in range(30, 140)]
    numbers = [depth_number(frame.depth) for frame in frames]
    assert (numbers[0], numbers[-1]) == (30, 139)
    assert numbers[20] == {"index": 50, "timestamp": 51}[pairing]


def test_each_pairing_has_an_index_of_its_own(drifting):
    root, _ = drifting
    for _ in range(2):  # from the files, then from the index on disk
        assert chosen_depths(root, "index", [100]) == [100]
        assert chosen_depths(root, "timestamp", [60]) == [61]
        assert chosen_depths(root, "index", [60]) == [60]


def test_images_without_depth_at_the_end(tmp_path, caplog):
    write_recording(tmp_path / NAME, times(30, 6), times(30, 4), times(100, 20))
    for pairing in ("index", "timestamp"):
        assert chosen_depths(tmp_path, pairing, range(6)) == [0, 1, 2, 3, None, None]
    assert caplog.text.count("2 of 6 images have no depth") == 2


def test_an_unknown_pairing_is_refused(tmp_path, no_type_checks):
    with pytest.raises(ValueError, match="pairing must be timestamp or index, got 'name'"):
        BONN(tmp_path, pairing="name")


def test_files_count_not_lists(tmp_path):
    """The lists of the original archives also name depth maps that are not there."""
    folder = write_recording(tmp_path / NAME, times(30, 4), times(30, 4), times(100, 20))
    (folder / "depth" / stamp_name(times(30, 4)[1])).unlink()
    assert chosen_depths(tmp_path, "timestamp", range(4)) == [0, None, 2, 3]
    assert chosen_depths(tmp_path, "index", range(4)) == [0, 2, 3, None]


@pytest.mark.parametrize("folder", ["rgbd_bonn_crowd3", "crowd3", "deep/er/rgbd_bonn_crowd3"])
def test_names_with_and_without_prefix(tmp_path, folder):
    write_recording(tmp_path / folder, [1.0], [1.0], [1.0])
    for name in ("rgbd_bonn_crowd3", "crowd3"):
        videos = GeometryVideos(BONN(tmp_path), [name])
        assert (videos.names, videos.missing_names, videos[0].name) == (["crowd3"], [], "crowd3")
    videos = GeometryVideos(BONN(tmp_path), ["crowd3", "rgbd_bonn_crowd2"])
    assert videos.missing_names == ["crowd2"]
    assert BONN(tmp_path / folder).index()[0].name == "crowd3"


def test_camera(tmp_path):
    write_recording(tmp_path / NAME, [1.0, 2.0], [1.0, 2.0], [1.015, 2.021])
    reader = BONN(tmp_path)
    frames = reader.read(reader.index()[0], [0, 1])
    expected = np.array([[542.822841, 0, 316.09352], [0, 542.57687, 238.256098], [0, 0, 40]]) / 40
    np.testing.assert_allclose(frames[0].intrinsics, expected)
    assert frames[1].camera_to_world.shape == (4, 4)
    assert frames[1].camera_to_world.isnan().all()  # the next pose is 21 ms away


def test_poses_are_those_of_the_camera(tmp_path):
    """The authors' transform of the poses of the markers, as a rotation and translation."""
    write_recording(tmp_path / NAME, [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], pose=lambda i: forward(7 * i))
    reader = BONN(tmp_path)
    first, second = (frame.camera_to_world.numpy() for frame in reader.read(reader.index()[0], [0, 1]))
    axes = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    for pose in (first, second):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) > 0
    # first: the markers are at the origin, so the pose is the camera in them, in the authors' four digits but for scale
    linear = np.array([[1.0157, 0.1828, -0.2389], [0.0009, -0.8431, -0.6413], [-0.3009, 0.6147, -0.8085]])
    np.testing.assert_allclose(1.0593 * first[:3, :3], linear, atol=2e-4)
    assert first[:3, 3].tolist() == [0.0113, -0.0098, 0.0111]
    np.testing.assert_allclose(second, np.linalg.inv(axes) @ forward(7) @ axes @ first, atol=1e-9)


def test_two_views_agree(tmp_path, disagreement):
    """The poses that the markers of a known camera would have give the known wall."""
    room = Room(4, centre=(31.60935, 23.8256098))  # of a tenth of 640x480
    camera = np.array([[54.2822841, 0, 31.60935], [0, 54.257687, 23.8256098]])
    axes = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    reader = BONN(tmp_path)
    markers = np.linalg.inv(reader.read(reader.index()[0], [0])[0].camera_to_world.numpy())
    seconds = [1.0, 2.0, 3.0, 4.0]
    write_recording(
        tmp_path / "b" / "rgbd_bonn_crowd2",
        seconds,
        seconds,
        seconds,
        image=room.image,
        depth=lambda i: 5 * room.millimetres(i, intrinsics=camera),
        pose=lambda i: axes @ room.pose(i) @ markers @ axes,
    )
    clip = SceneClips(BONN(tmp_path / "b"), ClipSampling(num_frames=4, max_interval=1), SceneCrop((48, 64)))[0]
    assert disagreement(clip, 0, 3).max() < 0.01


def broken(root):
    reader = BONN(root)
    with pytest.raises(DatasetNotFoundError):
        reader.index()
    ((path, reason),) = reader.broken
    return path, reason


def test_recordings_of_tum_are_refused(tmp_path):
    folder = write_recording(tmp_path / "rgbd_dataset_freiburg3_walking_xyz", [1.0], [1.0], [1.0])
    assert broken(tmp_path) == (
        str(folder), "is of TUM, with another camera; read it with omnistream.data.scenes.TUM"
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_a_selection_alone_is_refused(tmp_path, kind):
    folder = write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    (folder / kind).rename(folder / f"{kind}_110")
    assert broken(tmp_path) == (
        str(folder / kind), f"has no .png files; {kind}_110 holds a selection, which is not read"
    )  # fmt: skip
    (folder / f"{kind}_110").rename(folder / "elsewhere")
    assert broken(tmp_path) == (str(folder / kind), "has no .png files")


@pytest.mark.parametrize("name", ["frame_1.png", "nan.png", "inf.png"])
def test_files_are_named_by_their_time(tmp_path, name):
    folder = write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    (folder / "rgb" / "1.000000.png").rename(folder / "rgb" / name)
    assert broken(tmp_path) == (
        str(folder / "rgb" / name), "is not named by a time in seconds, such as 1548266530.61328.png"
    )  # fmt: skip


@pytest.mark.parametrize("names", [("1.0.png", "1.00.png"), ("10.0.png", "9.0.png")])
def test_names_in_another_order_than_times_are_refused(tmp_path, names):
    folder = write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    (folder / "depth" / "1.000000.png").unlink()
    for name in names:
        Image.fromarray(np.ones((12, 16), np.uint16)).save(folder / "depth" / name)
    assert broken(tmp_path) == (
        str(folder / "depth" / names[1]), "is not later than the file before it by name"
    )  # fmt: skip


def test_a_broken_pose_is_named(tmp_path):
    folder = write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    (folder / "groundtruth.txt").write_text("# t\n1.0 0 0 -inf 0 0 0 1\n")
    assert broken(tmp_path) == (str(folder / "groundtruth.txt"), "line 2: '-inf' is not a finite number")


def test_depth_is_in_metres_and_as_stored(tmp_path):
    write_recording(tmp_path / NAME, [1.0], [1.0], [1.0])
    reader = BONN(tmp_path)
    (frame,) = reader.read(reader.index()[0], [0])
    expected = torch.ones(12, 16)
    expected[0, 0] = 0
    assert torch.equal(frame.depth, expected)
    assert torch.equal(frame.valid, expected > 0)

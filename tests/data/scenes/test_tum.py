"""TUM RGB-D: which images are frames, and which pose and depth each of them has."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import Room
from tum_files import (
    SIZE,
    depth_number,
    forward,
    image_number,
    numbered_image,
    pose_line,
    stamp_name,
    write_list,
    write_recording,
)

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos
from omnistream.data.media import DepthReadError, ImageReadError, MediaReadError
from omnistream.data.scenes import TUM, ClipSampling, SceneClips, SceneCrop

NAME = "rgbd_dataset_freiburg3_walking_xyz"
START = 1311868164.0
"""Of the real recordings: timestamps with six decimals need all of float64."""


def times(rate, count, offset=0.0):
    return [round(START + offset + i / rate, 6) for i in range(count)]


@pytest.fixture
def recording(tmp_path):
    """12 images at 30 Hz from 0.1 s, depth 3 ms later, poses at 100 Hz from the start to 0.4 s."""
    return write_recording(tmp_path / NAME, times(30, 12, 0.1), times(30, 12, 0.103), times(100, 41))


def read_all(root):
    reader = TUM(root)
    (sequence,) = reader.index()
    return reader.read(sequence, range(sequence.num_frames))


def test_broken_depth_does_not_matter_for_poses(recording):
    root = recording.parent if recording.name == NAME else recording
    for path in root.rglob("depth/*.png"):
        path.write_bytes(b"broken")
    frames = list(GeometryVideos(TUM(root), images=None)[0].frames(with_depth=False))
    assert len(frames) > 0
    assert all(frame.depth is None and frame.camera_to_world.isfinite().all() for frame in frames)
    with pytest.raises(DepthReadError):
        list(GeometryVideos(TUM(root), images=None)[0].frames())


def broken(root):
    """Path and reason of the one sequence, which cannot be read."""
    reader = TUM(root)
    with pytest.raises(DatasetNotFoundError):
        reader.index()
    ((path, reason),) = reader.broken
    return path, reason


def test_frames_are_the_images_with_a_pose(recording, caplog):
    frames = read_all(recording.parent)
    # images at 0.1 + i/30 s; the last pose is at 0.4 s, and 0.4 + 0.02 s is before the image at 0.4333 s
    assert [image_number(frame.image) for frame in frames] == list(range(10))
    assert [depth_number(frame.depth) for frame in frames] == list(range(10))
    for i, frame in enumerate(frames):
        # closest of the poses at k/100 s
        np.testing.assert_allclose(frame.camera_to_world, forward(10 + round(100 * i / 30)), atol=1e-11)
        assert frame.depth[1, 1] == np.float32((5000 + i) / 5000)
        assert frame.depth[0, 0] == 0
        assert not frame.valid[0, 0]
        assert frame.depth_intrinsics is None
    assert f"{recording}: 2 of 12 images have no pose within 0.02 s; skipped" in caplog.text
    (sequence,) = TUM(recording.parent).index()
    assert (sequence.name, sequence.is_video, sequence.is_metric) == (NAME, True, True)


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ("freiburg1", (517.3, 516.5, 319.1, 255.8)),
        ("freiburg2", (520.9, 521.0, 325.6, 250.2)),
        ("freiburg3", (535.4, 539.2, 320.6, 248.1)),
    ],
)
def test_the_camera_follows_from_the_name(tmp_path, camera, expected):
    """fx, fy, cx + 0.5, cy + 0.5 in an image of 640x480, and in one of a fortieth of it."""
    big = {"image": lambda _: np.zeros((480, 640, 3), np.uint8), "depth": lambda _: np.ones((480, 640), np.uint16)}
    for folder, contents, scale in (("big", big, 1), ("small", {}, 40)):
        write_recording(tmp_path / folder / f"rgbd_dataset_{camera}_desk", [1.0], [1.0], [1.0], **contents)
        (frame,) = read_all(tmp_path / folder)
        fx, fy, cx, cy = (value / scale for value in expected)
        torch.testing.assert_close(
            frame.intrinsics, torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
        )


def test_two_views_agree(tmp_path, disagreement):
    # an image of a tenth of 640x480
    room = Room(4, centre=(32.06, 24.81))
    write_recording(
        tmp_path / NAME,
        [1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, 3.0, 4.0],
        image=room.image,
        depth=lambda i: 5 * room.millimetres(i, intrinsics=np.array([[53.54, 0, 32.06], [0, 53.92, 24.81]])),
        pose=room.pose,
    )
    clip = SceneClips(TUM(tmp_path), ClipSampling(num_frames=4, max_interval=1), SceneCrop((48, 64)))[0]
    assert disagreement(clip, 0, 3).max() < 0.01


def test_a_pose_is_for_one_image(tmp_path):
    """Two images within the limit of one pose: the closer one gets it, the other is no frame."""
    write_recording(tmp_path / NAME, [1.0, 1.01, 2.0], [1.0], [1.008, 2.0])
    assert [image_number(frame.image) for frame in read_all(tmp_path)] == [1, 2]


def test_the_limit_is_excluded(tmp_path):
    write_recording(tmp_path / NAME, [1.0, 2.0, 3.0], [1.021, 2.019, 3.0], [1.0, 2.0, 3.021])
    assert [depth_number(frame.depth) for frame in read_all(tmp_path)] == [None, 1]


def test_lists_in_any_order(recording):
    frames = read_all(recording.parent)
    for name in ("rgb.txt", "depth.txt", "groundtruth.txt"):
        head, *lines = (recording / name).read_text().splitlines()
        (recording / name).write_text("\n".join([head, *reversed(lines)]))
    again = read_all(recording.parent)
    assert [image_number(frame.image) for frame in again] == list(range(10))
    for frame, other in zip(frames, again, strict=True):
        assert torch.equal(frame.depth, other.depth)
        assert torch.equal(frame.camera_to_world, other.camera_to_world)


def test_of_repeated_timestamps_the_last_counts(recording, caplog):
    first, second = times(30, 2, 0.1)
    lines = (recording / "rgb.txt").read_text()
    (recording / "rgb.txt").write_text(f"{lines}{first:.6f} rgb/{stamp_name(second)}\n")
    assert [image_number(frame.image) for frame in read_all(recording.parent)[:3]] == [1, 1, 2]
    assert "rgb.txt: 1 lines are skipped because a later line has the same timestamp, such as line 4 (line 16)" in (
        caplog.text
    )


def test_the_published_choice_of_frames(tmp_path):
    """Every third image that has a pose, 90 in all: the images before the first pose do not count."""
    write_recording(tmp_path / "data" / NAME, times(30, 320), [START], times(100, 1000, 0.5))
    videos = GeometryVideos(TUM(tmp_path), "pose", FrameChoice(stride=3, count=90))
    assert (len(videos), videos.missing) == (1, 7)
    video = videos[0]
    assert (video.name, len(video)) == (NAME, 90)
    # the first image with a pose within 0.02 s of 0.5 s is at 15/30 s
    assert [image_number(frame.image) for frame in TUM(tmp_path).read(video.sequence, [0, 3, 267])] == [15, 18, 282]
    assert list(video.positions)[:3] == [0, 3, 6]


def test_the_dynamic_sequences():
    names = TUM.sequence_lists["pose"]
    assert len(set(names)) == 8
    assert {name.removeprefix("rgbd_dataset_freiburg3_") for name in names} == {
        "sitting_static", "sitting_xyz", "sitting_halfsphere", "sitting_rpy",
        "walking_static", "walking_xyz", "walking_halfsphere", "walking_rpy",
    }  # fmt: skip


def test_a_missing_depth_map_is_none(recording, caplog):
    (recording / "depth" / stamp_name(times(30, 5, 0.103)[4])).unlink()
    numbers = [depth_number(frame.depth) for frame in read_all(recording.parent)]
    assert numbers == [0, 1, 2, 3, None, 5, 6, 7, 8, 9]  # the neighbours are 30 ms away
    assert "depth.txt: 1 of 12 depth maps have no file" in caplog.text
    assert "1 of 10 images have no depth within 0.02 s" in caplog.text


def test_poses_need_no_depth(recording):
    (recording / "depth.txt").unlink()
    frames = read_all(recording.parent)
    assert len(frames) == 10
    assert all(frame.depth is None for frame in frames)


def test_added_depth_is_noticed(recording):
    (recording / "depth.txt").write_text("# nothing yet\n1.0 depth/none.png\n")
    assert read_all(recording.parent)[0].depth is None
    write_list(recording / "depth.txt", "depth", times(30, 12, 0.103))
    assert depth_number(read_all(recording.parent)[0].depth) == 0


def test_a_missing_image_is_named(recording):
    name = stamp_name(times(30, 3, 0.1)[2])
    (recording / "rgb" / name).unlink()
    path, reason = broken(recording.parent)
    assert path == str(recording / "rgb.txt")
    assert reason == f"1 of 12 images are missing, such as rgb/{name}"


def test_streams_of_different_clocks_are_refused(recording):
    (recording / "groundtruth.txt").write_text(pose_line(5.0, np.eye(4)))
    path, reason = broken(recording.parent)
    assert path == str(recording / "rgb.txt")
    assert reason == "no image has a pose within 0.02 s in groundtruth.txt"


@pytest.mark.parametrize("values", ["-inf 0 0 0 0 0 1", "0 0 0 nan 0 0 1", "0 0 0 0 0 0 0", "0 0 0 1"])
def test_a_broken_pose_makes_the_sequence_unreadable(recording, values):
    text = (recording / "groundtruth.txt").read_text()
    (recording / "groundtruth.txt").write_text(f"{text}{START + 9} {values}\n")
    path, reason = broken(recording.parent)
    assert path == str(recording / "groundtruth.txt")
    assert reason.startswith("line 43: ")


def test_an_unknown_camera_is_refused(tmp_path):
    write_recording(tmp_path / "my_desk", [1.0], [1.0], [1.0])
    path, reason = broken(tmp_path)
    assert path == str(tmp_path / "my_desk")
    assert reason.startswith("the camera is not known; the name of a folder of TUM holds freiburg1")


def first_file(folder):
    return min(folder.iterdir())


def test_depth_of_eight_bits_is_refused(recording):
    """By the depth of its bits, not by its values: a map that is nowhere above 255 is read if it has 16."""
    path = first_file(recording / "depth")
    Image.fromarray(np.full(SIZE, 200, np.uint16)).save(path)
    assert read_all(recording.parent)[0].depth.max() == np.float32(200 / 5000)
    Image.fromarray(np.full(SIZE, 200, np.uint8)).save(path)
    with pytest.raises(DepthReadError) as caught:
        read_all(recording.parent)
    assert str(caught.value) == f"{path}: expected 16-bit grey, got mode L"


@pytest.mark.parametrize(("kind", "error"), [("rgb", ImageReadError), ("depth", DepthReadError)])
def test_a_truncated_png_is_named(recording, kind, error):
    path = first_file(recording / kind)
    noise = np.random.default_rng(0).integers(0, 2**16, SIZE, np.uint16)
    Image.fromarray(noise if kind == "depth" else np.stack([noise.astype(np.uint8)] * 3, -1)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(error, match="damaged") as caught:
        read_all(recording.parent)
    assert caught.value.path == str(path)


def test_depth_of_another_size_is_refused(recording):
    path = first_file(recording / "depth")
    Image.fromarray(np.ones((24, 32), np.uint16)).save(path)
    with pytest.raises(MediaReadError) as caught:
        read_all(recording.parent)
    assert str(caught.value) == f"{path}: depth of (24, 32) for an image of (12, 16)"


def test_an_image_of_another_shape_is_refused(recording):
    path = first_file(recording / "rgb")
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path)
    Image.fromarray(np.ones((12, 12), np.uint16)).save(first_file(recording / "depth"))
    with pytest.raises(MediaReadError) as caught:
        read_all(recording.parent)
    assert str(caught.value) == (f"{path}: 12x12 pixels; the calibration is for 640x480 and images resized from it")


def test_the_root_may_be_the_sequence(recording, monkeypatch):
    assert TUM(recording).index()[0].name == NAME
    assert len(read_all(recording)) == 10
    monkeypatch.chdir(recording)
    assert TUM(".").index()[0].name == NAME


def test_folders_may_hold_blanks(tmp_path):
    write_recording(tmp_path / "my data - 2" / NAME, [1.0], [5.0], [1.0])
    (frame,) = read_all(tmp_path)
    assert (image_number(frame.image), frame.depth) == (0, None)


def test_two_folders_of_one_name_are_refused(tmp_path):
    for place in ("a", "b"):
        write_recording(tmp_path / place / NAME, [1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match=f"are both the sequence {NAME}; set `root` so that it holds one") as caught:
        TUM(tmp_path).index()
    assert all(str(tmp_path / place / NAME) in str(caught.value) for place in ("a", "b"))


def test_exif_orientation_is_not_applied(recording):
    """Depth and camera belong to the stored pixels."""
    path = first_file(recording / "rgb")
    image = numbered_image(0)
    image[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(image).save(path, exif=exif)
    assert read_all(recording.parent)[0].image[0, 0, 0] == 255


def test_real_poses(sample_data, tmp_path):
    """The real path of fr2/desk with images at the times of its real estimate: the nearest pose, in order of time."""
    folder = sample_data / "trajectories" / "tum"
    images = np.loadtxt(folder / "fr2_desk_ORB_kf_mono.txt")[:, 0]
    recording = write_recording(tmp_path / "rgbd_dataset_freiburg2_desk", images.tolist(), images.tolist(), [1.0])
    (recording / "groundtruth.txt").write_text((folder / "fr2_desk_groundtruth.txt").read_text())
    frames = read_all(tmp_path)
    truth = np.loadtxt(folder / "fr2_desk_groundtruth.txt")
    distances = np.abs(images[:, None] - truth[:, 0])
    with_pose = distances.min(1) < 0.02
    assert 100 < with_pose.sum() == len(frames) < len(images)
    assert [image_number(frame.image) for frame in frames] == np.flatnonzero(with_pose).tolist()
    positions = np.stack([frame.camera_to_world[:3, 3] for frame in frames])
    np.testing.assert_array_equal(positions, truth[distances.argmin(1)[with_pose], 1:4])

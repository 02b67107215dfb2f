"""Sintel's own files, written here byte by byte."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import FOCAL, SIZE, Room

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import GeometryVideos
from omnistream.data.media import DepthReadError, MediaReadError
from omnistream.data.media.sintel import read_cam, read_dpt
from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop, Sintel

TAG = b"PIEH"
K = np.array([[FOCAL, 0, 33.0], [0, FOCAL, 23.0], [0, 0, 1]])


def dpt(depth):
    height, width = depth.shape
    return TAG + struct.pack("<ii", width, height) + depth.astype("<f4").tobytes()


def cam(intrinsics, camera_to_world):
    world_to_camera = np.linalg.inv(camera_to_world)[:3]
    return TAG + intrinsics.astype("<f8").tobytes() + world_to_camera.astype("<f8").tobytes()


@pytest.fixture
def written(tmp_path):
    """Two scenes, of which the second has a frame without depth."""
    room = Room(8, centre=(33.0, 23.0))
    for scene in ("alley_1", "bamboo_2"):
        folders = {kind: tmp_path / "training" / kind / scene for kind in ("final", "depth", "camdata_left")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        for number in range(8):
            name = f"frame_{number + 1:04d}"
            Image.fromarray(room.image(number)).save(folders["final"] / f"{name}.png")
            (folders["depth"] / f"{name}.dpt").write_bytes(dpt(room.millimetres(number) / 1000))
            (folders["camdata_left"] / f"{name}.cam").write_bytes(cam(K, room.pose(number)))
    (tmp_path / "training" / "depth" / "bamboo_2" / "frame_0003.dpt").unlink()
    return tmp_path, room


@pytest.mark.parametrize("inner", ["", "training"])
def test_values_are_read_as_written(written, inner):
    root, room = written
    reader = Sintel(root / inner)
    assert [(one.name, one.num_frames) for one in reader.index()] == [("alley_1", 8), ("bamboo_2", 7)]
    frames = reader.read(reader.index()[1], [1, 2])
    for frame, number in zip(frames, (1, 3), strict=True):
        assert torch.equal(frame.image, torch.from_numpy(room.image(number)).permute(2, 0, 1))
        assert torch.equal(frame.depth, torch.from_numpy((room.millimetres(number) / 1000).astype(np.float32)))
        np.testing.assert_allclose(frame.camera_to_world, room.pose(number), atol=1e-12)
        np.testing.assert_array_equal(frame.intrinsics, K)


def test_all_frames_stay_in_an_evaluation(written):
    """A model sees every image; training does not."""
    root, room = written
    (root / "training" / "camdata_left" / "bamboo_2" / "frame_0005.cam").unlink()
    reader = Sintel(root, all_frames=True)
    frames = list(GeometryVideos(reader, ["bamboo_2"])[0].frames())
    assert len(frames) == 8
    assert [number for number, frame in enumerate(frames) if frame.depth is None] == [2]
    assert [number for number, frame in enumerate(frames) if frame.camera_to_world.isnan().any()] == [4]
    np.testing.assert_allclose(frames[2].camera_to_world, room.pose(2), atol=1e-12)
    assert [one.num_frames for one in Sintel(root).index()] == [8, 6]
    with pytest.raises(ValueError, match="has frames without intrinsics or pose, which clips need"):
        SceneClips(reader, ClipSampling(num_frames=4, max_interval=1), SceneCrop(SIZE))


def test_poses_need_no_depth(written):
    root, room = written
    (root / "training" / "depth" / "alley_1" / "frame_0002.dpt").write_bytes(b"broken")
    video = GeometryVideos(Sintel(root, all_frames=True), ["alley_1"], images=None)[0]
    frames = list(video.frames(with_depth=False))
    assert [frame.depth for frame in frames] == [None] * 8
    np.testing.assert_allclose(frames[1].camera_to_world, room.pose(1), atol=1e-12)
    with pytest.raises(MediaReadError, match="frame_0002"):
        list(video.frames())


def test_two_views_agree(written, disagreement):
    clip = SceneClips(Sintel(written[0]), ClipSampling(num_frames=4, max_interval=1), SceneCrop(SIZE))[0]
    assert disagreement(clip, 0, 3).max() < 0.01


def test_each_kind_of_images_has_an_index_of_its_own(written):
    root, _ = written
    Sintel(root).index()
    with pytest.raises(DatasetNotFoundError, match="holds no sequence"):
        Sintel(root, render="clean").index()


def test_the_documented_bytes(tmp_path):
    path = tmp_path / "a.dpt"
    path.write_bytes(bytes.fromhex("50494548 02000000 01000000 0000c03f 00002040"))
    assert read_dpt(path).tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PIEG" + bytes(16), "does not begin with Sintel's tag"),
        (TAG + bytes(4), "8 bytes are too few"),
        (TAG + struct.pack("<iif", 2, 1, 1.0), "expected 20 bytes for 2x1, got 16"),
        (TAG + struct.pack("<iiff", 1, 1, 1.0, 1.0), "expected 16 bytes for 1x1, got 20"),
        (TAG + struct.pack("<ii", -1, 1), "a size of -1x1"),
        (TAG + struct.pack("<ii", 2**20, 2**20), "is not that of a depth map"),
    ],
)
def test_broken_depth_is_named(tmp_path, data, reason):
    path = tmp_path / "a.dpt"
    path.write_bytes(data)
    with pytest.raises(DepthReadError, match=reason) as caught:
        read_dpt(path)
    assert str(path) in str(caught.value)


def test_broken_cameras_are_named(tmp_path):
    path = tmp_path / "a.cam"
    with pytest.raises(MediaReadError, match="No such file"):
        read_cam(path)
    path.write_bytes(TAG + bytes(100))
    with pytest.raises(MediaReadError, match=r"expected 172 bytes for a \.cam file, got 104"):
        read_cam(path)
    path.write_bytes(TAG + bytes(168))
    with pytest.raises(MediaReadError, match="cannot be inverted"):
        read_cam(path)


def test_a_broken_camera_takes_out_its_scene(written):
    root, _ = written
    (root / "training" / "camdata_left" / "alley_1" / "frame_0002.cam").write_bytes(TAG)
    reader = Sintel(root)
    assert [one.name for one in reader.index()] == ["bamboo_2"]
    assert "frame_0002.cam" in reader.broken[0][0]


def test_depth_of_another_size_is_refused(written):
    root, _ = written
    (root / "training" / "depth" / "alley_1" / "frame_0001.dpt").write_bytes(dpt(np.ones((4, 4))))
    reader = Sintel(root)
    with pytest.raises(MediaReadError, match=r"depth of \(4, 4\) for an image of"):
        reader.read(reader.index()[0], [0])


def test_published_lists():
    lists = Sintel.sequence_lists
    assert len(set(lists["depth"])) == len(lists["depth"]) == 23
    assert len(set(lists["pose"])) == len(lists["pose"]) == 14
    assert set(lists["pose"]) < set(lists["depth"])
    assert {"alley_1", "mountain_1", "bandage_1", "ambush_2"} < set(lists["depth"]) - set(lists["pose"])


def test_scenes_of_a_list_are_found(written):
    videos = GeometryVideos(Sintel(written[0]), "depth")
    assert [videos[index].name for index in range(2)] == ["alley_1", "bamboo_2"]
    assert videos.missing == 21
    with pytest.raises(DatasetNotFoundError, match=r"none of the sequences alley_2, .*it has alley_1, bamboo_2"):
        GeometryVideos(Sintel(written[0]), "pose")

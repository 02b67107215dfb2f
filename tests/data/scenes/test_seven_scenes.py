import numpy as np
import pytest
import seven_scenes_files as files
import torch
from scene_files import Room

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.media import DepthReadError, MediaReadError
from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop, SceneFolder, SevenScenes

ROOM = Room(20, centre=(320.0, 240.0))


@pytest.fixture
def chess(tmp_path):
    files.write_sequence(tmp_path / "chess" / "seq-03", ROOM, range(3))
    return tmp_path


def stored(number, camera):
    depth = ROOM.millimetres(number, files.SIZE, camera).astype(np.float64)
    depth[:2, :5] = 0
    return torch.from_numpy(depth / 1000).float()


def test_values_are_read_as_written(chess):
    reader = SevenScenes(chess)
    (sequence,) = reader.index()
    assert (sequence.name, sequence.num_frames, sequence.is_metric) == ("chess/seq-03", 3, True)
    for frame, number in zip(reader.read(sequence, [2, 0]), (2, 0), strict=True):
        assert torch.equal(frame.depth, stored(number, files.DEPTH))  # 65535 is not 65 metres
        assert torch.equal(frame.valid, frame.depth > 0)
        assert torch.equal(frame.image, torch.from_numpy(files.image(number)).permute(2, 0, 1))
        np.testing.assert_allclose(frame.camera_to_world, ROOM.pose(number), atol=1e-7)
        np.testing.assert_array_equal(frame.intrinsics, files.COLOR)
        np.testing.assert_array_equal(frame.depth_intrinsics, files.DEPTH)


def test_exponents_have_three_digits(chess):
    text = (chess / "chess" / "seq-03" / "frame-000002.pose.txt").read_text()
    assert "e-001" in text
    assert "e+000" in text


def test_depth_is_that_of_the_ray_through_the_colour_pixel(chess):
    clip = SceneClips(SevenScenes(chess), ClipSampling(num_frames=1))[0]
    truth = stored(0, files.COLOR)
    inside = clip.valid[0] & (truth > 0)
    assert inside[30:-30, 40:-40].all()
    assert not inside[:20].any()  # the depth camera sees less
    # half a depth pixel on the wall that slants by 0.2: 1 mm at 3 m; with the colour camera it would be up to 3 cm
    assert (clip.depth[0] - truth)[inside].abs().max() < 0.004


def test_two_views_agree(chess, disagreement):
    clip = SceneClips(SevenScenes(chess), ClipSampling(num_frames=3, max_interval=1), SceneCrop((120, 160)))[0]
    assert disagreement(clip, 0, 2).max() < 0.01


def test_registered_depth_has_the_camera_of_colour(tmp_path):
    files.write_sequence(tmp_path / "chess" / "seq-01", ROOM, range(2), registered=True)
    files.write_sequence(tmp_path / "chess" / "seq-02", ROOM, range(1))
    reader = SevenScenes(tmp_path, registered=True)
    (sequence,) = reader.index()  # the other has no such depth
    (frame,) = reader.read(sequence, [1])
    assert torch.equal(frame.depth, stored(1, files.COLOR))
    assert frame.depth_intrinsics is None
    assert len(SevenScenes(tmp_path).index()) == 2


@pytest.fixture
def rooms(tmp_path):
    for scene, numbers in (("chess", (1, 2, 3)), ("stairs", (1, 4))):
        for number in numbers:
            files.write_sequence(tmp_path / scene / f"seq-{number:02d}", ROOM, range(1))
    files.write_splits(tmp_path / "chess", train=[1, 2], test=[3, 5])
    files.write_splits(tmp_path / "stairs", train=[4], test=[1])
    return tmp_path


def names(root, split=None):
    reader = SevenScenes(root, split)
    return [reader.published_name(sequence.name) for sequence in reader.index()]


def test_official_splits(rooms, caplog):
    assert names(rooms) == ["chess/seq-01", "chess/seq-02", "chess/seq-03", "stairs/seq-01", "stairs/seq-04"]
    assert names(rooms, "train") == ["chess/seq-01", "chess/seq-02", "stairs/seq-04"]
    assert not caplog.text
    assert names(rooms, "test") == ["chess/seq-03", "stairs/seq-01"]
    assert "1 of the 2 sequences of" in caplog.text
    assert "such as seq-05" in caplog.text
    with pytest.raises(ValueError, match="no official split 'val'"):
        SevenScenes(rooms, "val")


@pytest.mark.parametrize("inner", ["chess", "chess/seq-03"])
def test_the_root_may_be_a_scene_or_a_sequence(rooms, inner):
    assert names(rooms / inner, "test") == ["chess/seq-03"]


def test_sequences_are_chosen_by_name(rooms):
    videos = GeometryVideos(
        SevenScenes(rooms / "stairs"), ["stairs/seq-04", "stairs/seq-09"], FrameChoice(), ModelImages(long_side=64)
    )
    assert ([video.name for video in (videos[0],)], videos.missing_names) == (["stairs/seq-04"], ["stairs/seq-09"])


def test_a_missing_list_is_named(rooms):
    (rooms / "stairs" / "TestSplit.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"stairs holds no TestSplit\.txt; expected 7-Scenes' <scene>"):
        names(rooms, "test")
    assert len(names(rooms, "train")) == 3


@pytest.mark.parametrize(
    ("text", "got"),
    [("sequence1\nseq-02\n", "'seq-02'"), ("<!DOCTYPE html>", "'<!DOCTYPE html>'"), ("\n", "an empty file")],
)
def test_a_wrong_list_is_named(rooms, text, got):
    (rooms / "chess" / "TestSplit.txt").write_text(text)
    with pytest.raises(MediaReadError, match=rf"TestSplit\.txt: expected lines such as sequence3, got {got}") as caught:
        names(rooms, "test")
    assert "\n" not in str(caught.value)


def test_frames_without_pose_or_depth_are_left_out(chess, caplog):
    folder = chess / "chess" / "seq-03"
    (folder / "frame-000000.depth.png").unlink()
    (folder / "frame-000001.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    (sequence,) = SevenScenes(chess).index()
    assert list(sequence.frames) == ["frame-000002.color.png"]
    assert "2 of 3 frames have no depth or pose" in caplog.text


def test_broken_files_are_named(chess):
    folder = chess / "chess" / "seq-03"
    reader = SevenScenes(chess)
    (sequence,) = reader.index()
    depth = folder / "frame-000001.depth.png"
    depth.write_bytes(depth.read_bytes()[: depth.stat().st_size // 2])
    with pytest.raises(DepthReadError, match=r"frame-000001\.depth\.png: damaged depth map"):
        reader.read(sequence, [1])
    (folder / "frame-000002.pose.txt").write_text("1 0 0\n")
    (folder / "notes.txt").touch()  # the tree changed
    with pytest.raises(DatasetNotFoundError, match=r"frame-000002\.pose\.txt: expected numbers in the shape \(4, 4\)"):
        SevenScenes(chess).index()


def test_found_among_other_layouts(rooms, write_scene):
    np.savetxt(rooms / "stairs" / "seq-04" / "camera-intrinsics.txt", files.DEPTH)
    found = [sequence.name for sequence in SceneFolder(rooms).index()]
    assert found == [
        "seven_scenes:chess/seq-01", "seven_scenes:chess/seq-02", "seven_scenes:chess/seq-03",
        "seven_scenes:stairs/seq-01", "tsdf_fusion:stairs/seq-04",
    ]  # fmt: skip

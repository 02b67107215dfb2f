import numpy as np
import pytest
import torch
from scene_files import COLOR, DEPTH

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.media import MediaReadError
from omnistream.data.scenes import ClipSampling, ScanNet, SceneClips, SceneCrop

FORMS = {"scannet": "scene0000_00", "sens": "scene0000_00.sens"}


@pytest.fixture(params=list(FORMS))
def written(request, tmp_path, write_scene):
    """One scene in each form; frame 3 lost tracking."""
    room = write_scene(request.param, tmp_path / "scans" / "scene0000_00" / FORMS[request.param], lost=3)
    return tmp_path, room


def test_values_are_read_as_written(written):
    root, room = written
    reader = ScanNet(root)
    (sequence,) = reader.index()
    assert sequence.num_frames == 19
    assert sequence.is_video
    assert sequence.is_metric
    frames = reader.read(sequence, [0, 2, 3, 18])
    for frame, number in zip(frames, (0, 2, 4, 19), strict=True):  # 3 is left out, and 10 comes after 9, not after 1
        assert (
            frame.image.int() - torch.from_numpy(room.image(number)).permute(2, 0, 1).int()
        ).abs().max() < 20  # JPEG
        assert abs(frame.image[0].float().mean() - 5 * number) < 1
        expected = torch.from_numpy(room.millimetres(number, (24, 32), DEPTH).astype(np.float64) / 1000).float()
        expected[0, :5] = 0
        assert torch.equal(frame.depth, expected)
        assert torch.equal(frame.valid, expected > 0)
        # six decimals in the exported text, float32 in the .sens file
        np.testing.assert_allclose(frame.camera_to_world, room.pose(number), atol=1e-6)
        np.testing.assert_allclose(frame.intrinsics, COLOR, rtol=1e-6)
        np.testing.assert_allclose(frame.depth_intrinsics, DEPTH, rtol=1e-6)


def test_two_views_agree_with_the_two_cameras_of_colour_and_depth(written, disagreement):
    root, _ = written
    clip = SceneClips(ScanNet(root), ClipSampling(num_frames=4, max_interval=1), SceneCrop((24, 32)))[6]
    assert clip.images.shape == (4, 3, 24, 32)
    # The ground truth is exact to the millimetre; half a depth pixel on the slanted wall is under 1 %. Reading depth
    # with the colour camera gives a larger error.
    assert disagreement(clip, 0, 3).max() < 0.01


def test_depth_is_that_of_the_ray_through_the_colour_pixel(written):
    root, room = written
    clip = SceneClips(ScanNet(root), ClipSampling(num_frames=1))[0]
    assert clip.depth.shape == (1, 48, 64)
    truth = torch.from_numpy(room.millimetres(0, (48, 64), COLOR).astype(np.float64) / 1000)
    valid = clip.valid[0]
    assert valid[4:-2, 2:-2].all()
    # The wall slants by 0.2: half a depth pixel (1/60 of the depth sideways) is 1 cm at 3 m.
    assert (clip.depth[0][valid] - truth[valid]).abs().max() < 0.02


@pytest.fixture
def scans(tmp_path, write_scene):
    for scene, form in (("scene0000_00", "sens"), ("scene0001_00", "scannet"), ("scene0707_00", "sens")):
        write_scene(form, tmp_path / "scans" / scene / (f"{scene}.sens" if form == "sens" else "."), num_frames=3)
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\nscene0002_00\n")
    (tmp_path / "scannetv2_val.txt").write_text("scene0001_00\n")
    return tmp_path


def names(root, split):
    return [sequence.name for sequence in ScanNet(root, split).index()]


def test_official_splits(scans, caplog):
    assert names(scans, "train") == ["scans/scene0000_00/scene0000_00.sens"]
    assert "1 of the 2 scenes of the train split are not below" in caplog.text
    assert "such as scene0002_00" in caplog.text
    assert names(scans, "val") == ["scans/scene0001_00"]
    assert len(names(scans, None)) == 3
    (scans / "Tasks" / "Benchmark").mkdir(parents=True)
    (scans / "Tasks" / "Benchmark" / "scannetv2_test.txt").write_text("scene0707_00")
    assert names(scans, "test") == ["scans/scene0707_00/scene0707_00.sens"]


def test_a_missing_list_of_scenes_is_named(scans):
    with pytest.raises(
        DatasetNotFoundError,
        match=r"no scannetv2_test.txt; expected the list .* ScanNet/ScanNet: Tasks/Benchmark/scann",
    ):
        ScanNet(scans, "test").index()


def test_the_export_is_preferred_if_both_forms_exist(tmp_path, write_scene):
    write_scene("scannet", tmp_path / "scene0000_00", num_frames=3)
    write_scene("sens", tmp_path / "scene0000_00" / "scene0000_00.sens", num_frames=3)
    assert names(tmp_path, None) == ["scene0000_00"]


def test_the_root_may_be_a_scene(tmp_path, write_scene):
    write_scene("scannet", tmp_path / "scene0000_00", num_frames=3)
    reader = ScanNet(tmp_path / "scene0000_00")
    assert [sequence.name for sequence in reader.index()] == ["."]
    assert SceneClips(reader, ClipSampling(num_frames=2))[0].name == f"{tmp_path}/scene0000_00:0..1"


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("value", ["nan", "-inf", "0"])
def test_scenes_without_finite_intrinsics_are_skipped_and_counted(tmp_path, write_scene, monkeypatch, form, value):
    good, bad = (
        tmp_path / scene / FORMS[form].replace("0000", scene[5:9]) for scene in ("scene0000_00", "scene0001_00")
    )
    write_scene(form, good, num_frames=3)
    broken = COLOR.copy()
    broken[1, 1] = float(value)
    monkeypatch.setattr("scene_files.COLOR", broken)
    write_scene(form, bad, num_frames=3)
    data = SceneClips(ScanNet(tmp_path), ClipSampling(num_frames=2))
    assert len(data.sequences) == 1
    assert list(data.broken_files.reasons.values()) == ["intrinsics are not finite with positive focal lengths"]


def test_nothing_found(tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"holds no sequence; expected ScanNet scenes: scene\*.sens files, or"
    ):
        ScanNet(tmp_path).index()


def test_the_published_frames_are_counted_over_all_frames(written):
    root, room = written
    videos = GeometryVideos(
        ScanNet(root, all_frames=True), ["scene0000_00"], FrameChoice(stop=11, stride=2), ModelImages(long_side=64)
    )
    (video,) = (videos[index] for index in range(len(videos)))
    assert video.name == "scene0000_00"
    frames = list(video.frames())
    assert len(frames) == 6  # 0, 2, ..., 10: without frame 3 they would be 0, 2, 5, 7, ...
    for frame, number in zip(frames, range(0, 11, 2), strict=True):
        np.testing.assert_allclose(frame.camera_to_world, room.pose(number), atol=1e-6)


def test_a_lost_pose_is_unknown_where_all_frames_count(written):
    root, room = written
    reader = ScanNet(root, all_frames=True)
    (sequence,) = reader.index()
    assert sequence.num_frames == 20
    before, lost = reader.read(sequence, [2, 3])
    assert lost.camera_to_world.isnan().all()
    assert lost.depth.max() > 0
    np.testing.assert_allclose(before.camera_to_world, room.pose(2), atol=1e-6)
    assert ScanNet(root).index()[0].num_frames == 19  # indexes of the two are kept apart


def test_clips_are_not_made_of_frames_that_may_have_no_pose(written):
    root, _ = written
    with pytest.raises(ValueError, match=r"ScanNet of .* has frames without intrinsics or pose, which clips need"):
        SceneClips(ScanNet(root, all_frames=True), ClipSampling(num_frames=2))


@pytest.mark.parametrize("missing", ["depth/4.png", "pose/4.txt"])
def test_a_missing_file_shifts_no_frame_where_all_frames_count(tmp_path, write_scene, missing):
    write_scene("scannet", tmp_path / "scene0707_00", num_frames=6)
    (tmp_path / "scene0707_00" / missing).unlink()
    reader = ScanNet(tmp_path, all_frames=True)
    (sequence,) = reader.index()
    assert list(sequence.frames) == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(MediaReadError, match=missing.replace(".", r"\.")):
        reader.read(sequence, [4])


def test_the_published_list_has_the_test_scenes_that_keep_tracking():
    names = ScanNet.sequence_lists["pose"]
    assert len(names) == len(set(names)) == 94
    assert (names[0], names[-1]) == ("scene0707_00", "scene0806_00")
    assert not {f"scene0{number}_00" for number in (711, 737, 750, 761, 791, 796)} & set(names)


@pytest.mark.parametrize("form", list(FORMS))
def test_scenes_are_found_by_their_published_names(tmp_path, write_scene, form):
    for scene in ("scene0707_00", "scene0708_00"):
        write_scene(form, tmp_path / "scans_test" / scene / (f"{scene}.sens" if form == "sens" else "."), num_frames=3)
    videos = GeometryVideos(ScanNet(tmp_path, all_frames=True), "pose", images=ModelImages(long_side=64))
    assert [videos[index].name for index in range(2)] == ["scene0707_00", "scene0708_00"]
    assert videos.missing == 92
    assert len(videos.names) == 94
    for name in ("scene0708_00", videos.sequences[1].name):  # as published, and as in the index
        assert GeometryVideos(ScanNet(tmp_path, all_frames=True), [name]).names == ["scene0708_00"]


def test_a_scene_that_is_the_root_is_called_by_its_folder(tmp_path, write_scene):
    write_scene("scannet", tmp_path / "scene0707_00", num_frames=3)
    assert GeometryVideos(ScanNet(tmp_path / "scene0707_00"), "pose")[0].name == "scene0707_00"

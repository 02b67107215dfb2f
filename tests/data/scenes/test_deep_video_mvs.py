import numpy as np
import pytest
import torch

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.scenes import ClipSampling, DeepVideoMVS, SceneClips, SceneCrop


def clips(root, num_frames=4, transform=None):
    sampling = ClipSampling(num_frames=num_frames, max_interval=1)
    return SceneClips(DeepVideoMVS(root), sampling, transform)


def test_values_are_read_as_written(tmp_path, write_scene):
    room = write_scene("deep_video_mvs", tmp_path / "hololens-dataset" / "000")
    data = clips(tmp_path)
    clip = data[5]  # starts at the sixth frame
    for t in range(4):
        expected = torch.from_numpy(room.millimetres(5 + t).astype(np.float32) / 1000)
        expected[0, :5] = 0
        assert torch.equal(clip.depth[t], expected)
        assert torch.equal(clip.valid[t], expected > 0)
        assert torch.equal(clip.camera_to_world[t], torch.from_numpy(room.pose(5 + t)).float())
        assert torch.equal(clip.images[t], torch.from_numpy(room.image(5 + t).transpose(2, 0, 1).copy()))
        assert clip.intrinsics[t].tolist() == [[60.0, 0, 31.5], [0, 60.0, 24.5], [0, 0, 1]]
    assert bool(clip.is_metric)
    assert bool(clip.is_video)
    assert clip.name.endswith("hololens-dataset/000:00008.png..00011.png")
    assert [clip.images.dtype, clip.depth.dtype, clip.valid.dtype] == [torch.uint8, torch.float32, torch.bool]


def test_two_views_agree(tmp_path, write_scene, disagreement):
    write_scene("deep_video_mvs", tmp_path / "s")
    clip = clips(tmp_path)[0]
    # The ground truth is exact to the millimetre; the rest is reading the depth of the pixel that a point falls into.
    assert disagreement(clip, 0, 3).max() < 0.01


def test_there_is_one_pose_per_image(tmp_path, write_scene):
    write_scene("deep_video_mvs", tmp_path / "s")
    (tmp_path / "s" / "images" / "00007.png").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"poses.txt: has 20 poses for 19 images"):
        clips(tmp_path)


@pytest.mark.parametrize("name", ["K.txt", "poses.txt"])
def test_broken_camera_files_are_named(tmp_path, write_scene, name):
    write_scene("deep_video_mvs", tmp_path / "s")
    (tmp_path / "s" / name).write_text("1 0 zero")
    with pytest.raises(DatasetNotFoundError, match=f"{name}: expected numbers in the shape"):
        clips(tmp_path)


def test_frames_without_depth_or_pose_are_left_out(tmp_path, write_scene, caplog):
    room = write_scene("deep_video_mvs", tmp_path / "s")
    (tmp_path / "s" / "depth" / "00004.png").unlink()
    poses = np.stack([room.pose(number).reshape(-1) for number in range(20)])
    poses[3], poses[4] = np.inf, 2 * poses[4]
    np.savetxt(tmp_path / "s" / "poses.txt", poses)
    clip = clips(tmp_path)[0]
    assert clip.images[:, 0, 0, 0].tolist() == [0, 10, 25, 30]  # frames 0, 2, 5, 6
    assert "3 of 20 frames have no depth or pose; skipped" in caplog.text


def test_nothing_found(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no sequence; expected folders with K.txt, poses.txt"):
        clips(tmp_path)


def test_real_sequence(sample_data, disagreement):
    data = clips(sample_data / "rgbd", transform=SceneCrop((180, 270)))
    assert [sequence.num_frames for sequence in data.sequences] == [96]
    clip = data[10]
    scaled = torch.tensor(
        [[495.56777 / 2, 0, (269.50290 + 0.5) / 2], [0, 495.48196 / 2, (169.19411 + 0.5) / 2], [0, 0, 1]]
    )
    torch.testing.assert_close(clip.intrinsics[0], scaled, atol=1e-3, rtol=0)
    assert float(clip.depth.max()) < 7.5
    # Depth of a head-mounted sensor: the median error is a few millimetres per metre, a wrong pose or unit gives tens
    # of per cent.
    errors = disagreement(clip, 0, 1)
    assert float(errors.median()) < 0.01
    assert float((errors < 0.05).double().mean()) > 0.9

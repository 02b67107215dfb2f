import numpy as np
import pytest
import torch

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import GeometryVideos, ModelImages
from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop, TSDFFusion


def clips(root, num_frames=4, transform=None):
    sampling = ClipSampling(num_frames=num_frames, max_interval=1)
    return SceneClips(TSDFFusion(root), sampling, transform)


def test_values_are_read_as_written(tmp_path, write_scene):
    room = write_scene("tsdf_fusion", tmp_path / "data")
    clip = clips(tmp_path)[5]
    for t in range(4):
        expected = torch.from_numpy(room.millimetres(5 + t).astype(np.float32) / 1000)
        expected[:2, :5] = 0
        assert torch.equal(clip.depth[t], expected)
        assert torch.equal(clip.valid[t], expected > 0)
        assert torch.equal(clip.camera_to_world[t], torch.from_numpy(room.pose(5 + t)).float())
        assert abs(clip.images[t].float() - torch.from_numpy(room.image(5 + t)).permute(2, 0, 1)).mean() < 2  # JPEG
        assert clip.intrinsics[t].tolist() == [[60.0, 0, 32.0], [0, 60.0, 24.0], [0, 0, 1]]
    assert bool(clip.is_metric)
    assert clip.name.endswith("data:frame-000010.color.jpg..frame-000016.color.jpg")


def test_two_views_agree(tmp_path, write_scene, disagreement):
    write_scene("tsdf_fusion", tmp_path / "data")
    assert disagreement(clips(tmp_path)[0], 0, 3).max() < 0.01


def test_frames_without_pose_are_left_out(tmp_path, write_scene, caplog):
    write_scene("tsdf_fusion", tmp_path / "data")
    (tmp_path / "data" / "frame-000002.pose.txt").unlink()
    clip = clips(tmp_path)[0]
    assert clip.name.endswith("frame-000000.color.jpg..frame-000008.color.jpg")
    assert "1 of 20 frames have no depth or pose" in caplog.text


def test_broken_pose_is_named(tmp_path, write_scene):
    write_scene("tsdf_fusion", tmp_path / "data")
    (tmp_path / "data" / "frame-000004.pose.txt").write_text("1 2 3")
    with pytest.raises(DatasetNotFoundError, match=r"frame-000004.pose.txt: expected numbers in the shape \(4, 4\)"):
        clips(tmp_path)


def test_real_sequence(sample_data, disagreement):
    data = clips(sample_data / "rgbd", transform=SceneCrop((240, 320)))
    assert [sequence.num_frames for sequence in data.sequences] == [200]
    clip = data[116]
    assert clip.intrinsics[0].tolist() == [[292.5, 0, 160], [0, 292.5, 120], [0, 0, 1]]
    assert 0 < float(clip.depth.max()) < 3.7  # 65535 is not 65 metres
    errors = disagreement(clip, 0, 1)
    assert float(errors.median()) < 0.01
    assert float((errors < 0.05).double().mean()) > 0.9


def test_a_sequence_that_is_the_root_is_called_by_its_folder(tmp_path, write_scene):
    write_scene("tsdf_fusion", tmp_path / "kitchen", num_frames=3)
    videos = GeometryVideos(TSDFFusion(tmp_path / "kitchen"), images=ModelImages(long_side=64))
    assert (videos.names, videos[0].name) == (["kitchen"], "kitchen")


def test_two_sequences_of_one_published_name_are_refused(tmp_path, write_scene):
    class LastFolder(TSDFFusion):
        def published_name(self, name):
            return name.rpartition("/")[2]

    for copy in ("a", "b"):
        write_scene("tsdf_fusion", tmp_path / copy / "kitchen", num_frames=3)
    with pytest.raises(ValueError, match=r"holds two sequences called kitchen: a/kitchen and b/kitchen; set `root`"):
        GeometryVideos(LastFolder(tmp_path))

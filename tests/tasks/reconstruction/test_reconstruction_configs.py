"""Packaged configurations of video depth and camera poses, each on a tiny data set in its authors' files."""

import math

import kitti_files
import numpy as np
import pytest
import torch
from listed_videos import evaluated, pose, rotation
from scene_files import Room, write_scannet, write_tsdf_fusion
from sintel_files import write_scene
from torch import nn
from tum_files import write_recording

from omnistream.commands.overrides import prepare
from omnistream.commands.train import OmniStreamCLI
from omnistream.evaluation.saved_predictions import SavedFrame
from omnistream.tasks.reconstruction import CameraPose, VideoDepth
from omnistream.trained_stream import TrainedStream

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROOM = Room(8, centre=(33.0, 23.0))


def sintel(root):
    """Two scenes, one of which only depth uses; sky beyond the limit."""
    for scene in ("alley_1", "alley_2"):
        depths = [ROOM.millimetres(number) / 1000 for number in range(5)]
        for depth in depths:
            depth[:4] = 1e10
        poses = [ROOM.pose(number) for number in range(5)]
        images = [ROOM.image(number) for number in range(5)]
        write_scene(root, scene, images, depths, [[60.0, 0, 33], [0, 60, 23], [0, 0, 1]], poses)


def slanted(number):
    """Depth for TUM's files, different in every frame and pixel."""
    rows, columns = np.mgrid[:12, :16]
    depth = (5000 + 300 * rows + 40 * columns + 100 * (number % 7)).astype(np.uint16)
    depth[0, 0] = 0
    return depth


def bonn(root):
    """150 images at 29.9 Hz and depth at 30: pairs by index and by time differ later on."""
    stamps = [1548266530 + index / 29.9 for index in range(150)]
    depths = [1548266529.992 + index / 30 for index in range(160)]
    write_recording(root / "rgbd_bonn_crowd2", stamps, depths, stamps, depth=slanted)


def tum(root):
    stamps = [1311868164 + index / 30 for index in range(30)]
    write_recording(root / "rgbd_dataset_freiburg3_walking_xyz", stamps, stamps, stamps)


def kitti(root):
    kitti_files.write_drive(root, frames=range(5, 120))


def scannet(root):
    write_scannet(root / "scene0707_00", 12, lost=4)


DATA = {
    "video_depth/sintel": (sintel, ["alley_1", "alley_2"], 23, 10),
    "video_depth/bonn": (bonn, ["crowd2"], 5, 110),
    "video_depth/bonn_by_index": (bonn, ["crowd2"], 5, 110),
    "video_depth/kitti": (kitti, ["2011_09_26_drive_0002_sync_02"], 13, 110),
    "camera_pose/sintel": (sintel, ["alley_2"], 14, 5),
    "camera_pose/tum": (tum, ["rgbd_dataset_freiburg3_walking_xyz"], 8, 10),
    "camera_pose/scannet": (scannet, ["scene0707_00"], 94, 4),
}
"""By configuration: who writes it, sequences that are there, how many the benchmark has, and frames in all."""


def built(name, root, *more):
    DATA[name][0](root)
    return configured(name, root, *more)


def configured(name, root, *more):
    options = [
        f"--data.root={root}",
        "--data.images.long_side=64",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
    ]
    return OmniStreamCLI(args=prepare(["-c", name, *options, *more]), run=False)


class Replays(nn.Module):
    """The truth of the frames that it is shown, which it checks, changed."""

    def __init__(self, videos, depth=lambda depth: depth, move=lambda pose, index: pose):
        super().__init__()
        self._videos = {videos[index].name: videos[index] for index in range(len(videos))}
        self._depth, self._move = depth, move

    def open(self, name):
        self._frames = enumerate(self._videos[name].frames())

    def reset(self):
        pass

    def step(self, images):
        index, frame = next(self._frames)
        assert torch.equal(images, frame.image[None])
        depth = torch.ones(frame.size) if frame.depth is None else frame.depth.clone()
        truth = frame.camera_to_world.double()
        known = truth if truth.isfinite().all() else torch.eye(4, dtype=torch.float64)
        return [SavedFrame(self._depth(depth), self._move(known, index), torch.eye(3))]


@pytest.mark.parametrize("name", [name for name in DATA if name.startswith("video_depth")])
def test_depth_is_scored_exactly_on_every_data_set(tmp_path, name):
    _, sequences, total, frames = DATA[name]
    cli = built(name, tmp_path / "data")
    videos = cli.datamodule.test
    assert cli.model.alignments[0] == "scale"
    limits = {"max_depth": cli.model.max_depth, "clip_to": cli.model.clip_to}
    assert limits == {
        "video_depth/sintel": {"max_depth": 70, "clip_to": 70},
        "video_depth/kitti": {"max_depth": None, "clip_to": None},
    }.get(name, {"max_depth": 70, "clip_to": None})
    perfect = evaluated(VideoDepth(Replays(videos), protocol=name, **limits), cli.datamodule, tmp_path)
    assert (perfect.protocol, perfect.num_samples, perfect.skipped) == (name, len(sequences), total - len(sequences))
    assert [row["name"] for row in perfect.settings["sequences"]] == sequences
    assert perfect.settings["num_frames"] == frames
    assert perfect.settings["videos"]["list"] == "depth"
    assert perfect.settings["videos"]["images"]["fit"] == "resize"
    for metric, found in perfect.metrics.items():
        expected = 1 if found.higher_is_better else 0
        assert metric == "abs_rel_constant" or found.value == pytest.approx(expected, abs=1e-5), metric
    assert perfect.metrics["abs_rel_constant"].value > 0.02

    def wrong(depth):
        depth[:, ::8] *= 1.5
        return depth

    noisy = evaluated(VideoDepth(Replays(videos, wrong), **limits), cli.datamodule, tmp_path)
    share, compared = 0, 0
    for index in range(len(videos)):
        for frame in videos[index].frames():
            if frame.depth is None:
                continue
            valid = frame.valid & (frame.depth < (limits["max_depth"] or math.inf))
            share, compared = share + int(valid[:, ::8].sum()), compared + int(valid.sum())
    share /= compared
    assert sum(row["weight"] for row in noisy.settings["sequences"]) == compared
    assert noisy.metrics["metric/abs_rel"].value == pytest.approx(0.5 * share, abs=1e-6)
    assert noisy.metrics["metric/delta1"].value == pytest.approx(1 - share, abs=1e-6)
    assert noisy.metrics["abs_rel"].value == pytest.approx(0.5 * share, rel=0.02)  # ten steps towards the optimum


@pytest.mark.parametrize("name", [name for name in DATA if name.startswith("camera_pose")])
def test_poses_are_scored_exactly_on_every_data_set(tmp_path, name):
    _, sequences, total, frames = DATA[name]
    cli = built(name, tmp_path / "data")
    videos = cli.datamodule.test
    assert cli.model.geometry.cameras == "both"
    perfect = evaluated(CameraPose(Replays(videos), protocol=name), cli.datamodule, tmp_path)
    assert (perfect.protocol, perfect.num_samples, perfect.skipped) == (name, len(sequences), total - len(sequences))
    assert [row["name"] for row in perfect.settings["sequences"]] == sequences
    assert perfect.settings["num_frames"] == frames
    assert perfect.settings["videos"]["images"]["fit"] == "crop"
    for prefix in ("", "se3/", "none/"):
        for metric in ("ate", "rpe_translation", "rpe_rotation"):
            assert perfect.metrics[f"{prefix}{metric}"].value < 1e-5

    def turned(truth, index):
        """To and fro about the optical axis: the centres stay."""
        return truth @ pose(rotation(2, 0.01 * (-1) ** index), (0, 0, 0))

    noisy = evaluated(CameraPose(Replays(videos, move=turned)), cli.datamodule, tmp_path)
    assert noisy.metrics["ate"].value < 1e-5
    assert noisy.metrics["rpe_rotation"].value == pytest.approx(math.degrees(0.02), rel=1e-3)  # files have few digits
    known = perfect.settings["sequences"][0]["details"]["num_poses"]
    assert known == (4 if name.endswith("scannet") else frames)


def test_bonn_is_paired_by_time_or_as_published(tmp_path):
    """The clocks drift apart: in the end, the depth that is nearest in time has the next index."""
    chosen = {}
    for name in ("video_depth/bonn", "video_depth/bonn_by_index"):
        videos = built(name, tmp_path / name).datamodule.test
        chosen[name] = [frame.depth for frame in videos[0].frames()]
    different = [
        not torch.equal(one, other)
        for one, other in zip(chosen["video_depth/bonn"], chosen["video_depth/bonn_by_index"], strict=True)
    ]
    assert not any(different[:3])
    assert different[-1]


def test_images_of_a_benchmark_have_cut3rs_size(tmp_path):
    for name in ("video_depth/kitti", "camera_pose/tum"):
        cli = built(name, tmp_path / name, "--data.images.long_side=512")
        expected = {"video_depth/kitti": (3, 144, 512), "camera_pose/tum": (3, 384, 512)}
        assert next(cli.datamodule.test[0].frames()).image.shape == expected[name]


@pytest.mark.parametrize("kind", ["video_depth", "camera_pose", "point_map"])
def test_the_world_needs_no_data(kind):
    cli = OmniStreamCLI(args=prepare(["-c", f"{kind}/world", "--trainer.logger=false"]), run=False)
    assert isinstance(cli.model.geometry, TrainedStream)
    assert cli.model.protocol == f"{kind}/world"
    assert cli.model.needs_training
    assert len(cli.datamodule.test) == 16
    assert len(cli.datamodule.test[0]) == 64
    assert next(cli.datamodule.test[0].frames()).image.shape == (3, 64, 64)


@pytest.mark.parametrize("kind", ["video_depth", "camera_pose"])
def test_own_scenes_are_found_by_their_layout_and_scored(tmp_path, kind):
    write_scannet(tmp_path / "data" / "scans" / "kitchen", 5)
    write_tsdf_fusion(tmp_path / "data" / "office", 4)
    cli = configured(f"{kind}/folder", tmp_path / "data")
    evaluation = {"video_depth": VideoDepth, "camera_pose": CameraPose}[kind]
    assert isinstance(cli.model, evaluation)
    perfect = evaluated(evaluation(Replays(cli.datamodule.test), protocol=cli.model.protocol), cli.datamodule, tmp_path)
    assert (perfect.protocol, perfect.num_samples, perfect.skipped) == (f"{kind}/own_scenes", 2, 0)
    rows = perfect.settings["sequences"]
    seen = [(row["name"], row["num_frames"]) for row in rows]
    assert seen == [
        ("scannet:scans/kitchen", 5),
        ("tsdf_fusion:office", 4),
    ]
    main = {"video_depth": "abs_rel", "camera_pose": "ate"}[kind]
    assert perfect.metrics[main].value == pytest.approx(0, abs=1e-5)
    (alone,) = configured(f"{kind}/folder", tmp_path / "data" / "office", "--data.frames.count=3").datamodule.test
    assert (alone.name, len(alone)) == ("tsdf_fusion:office", 3)

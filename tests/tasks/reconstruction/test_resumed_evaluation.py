"""What a test that goes on takes over: nothing whose model, data or precision has changed since."""

import shutil

import numpy as np
import pytest
import torch
from listed_videos import INTRINSICS, data, evaluated, save, three
from PIL import Image
from scene_files import write_scannet, write_tsdf_fusion
from torch import nn

from omnistream.data import EvaluationDataModule, GeometryVideos
from omnistream.data.scenes import NYUv2Video, ScanNet, TSDFFusion
from omnistream.data.world import WorldVideos
from omnistream.evaluation import SavedVideos
from omnistream.evaluation.saved_predictions import SavedFrame
from omnistream.tasks.reconstruction import VideoDepth
from omnistream.tasks.reconstruction import origin as origins

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Slope(nn.Module):
    """Depth that grows from the left to the right by `slope`, by a layer with an option; counts its steps."""

    def __init__(self, slope=1.0, eps=1e-5):
        super().__init__()
        self.slope, self.norm = slope, nn.LayerNorm(8, eps=eps)
        self._steps = []

    @property
    def steps(self):
        return len(self._steps)

    def settings(self):
        return {"slope": self.slope}

    def reset(self):
        self.seen = len(self._steps)  # a plain attribute that changes while it runs

    def step(self, images):
        self._steps.append(len(images))
        depth = 1 + self.slope * torch.linspace(0, 1, 8).expand(4, 8)
        return [SavedFrame(self.norm(depth) + 3, torch.eye(4), INTRINSICS)]


def from_files(reader):
    return EvaluationDataModule(test=GeometryVideos(reader, images=None), batch_size=1)


def abs_rel(result):
    return result.metrics["abs_rel"].value


def test_replaced_predictions_of_another_program_are_scored_again(tmp_path):
    for name, frames in three().items():
        save(tmp_path / "saved" / name, frames)
    exact = evaluated(VideoDepth(SavedVideos(tmp_path / "saved")), data(three()), tmp_path / "first")
    path = tmp_path / "saved" / "set" / "b" / "depth" / "0001.npy"
    np.save(path, np.load(path)[::-1])
    again = VideoDepth(SavedVideos(tmp_path / "saved"), resume=str(tmp_path / "first"))
    resumed = evaluated(again, data(three()), tmp_path / "second")
    fresh = evaluated(VideoDepth(SavedVideos(tmp_path / "saved")), data(three()), tmp_path / "third")
    assert resumed.metrics == fresh.metrics
    assert abs_rel(exact) < 1e-5 < 0.01 < abs_rel(fresh)
    seconds = [[row["details"]["seconds_per_frame"] for row in one.settings["sequences"]] for one in (exact, resumed)]
    assert [old == new for old, new in zip(*seconds, strict=True)] == [True, False, True]


def rewrite(path):
    Image.fromarray(np.array(Image.open(path))[:, ::-1] // 2).save(path)


@pytest.mark.parametrize("changed", ["nothing", "root", "depth", "precision", "setting", "part"])
def test_all_that_decides_an_outcome_counts(tmp_path, changed):
    write_tsdf_fusion(tmp_path / "data" / "room", 4)
    evaluated(VideoDepth(Slope()), from_files(TSDFFusion(tmp_path / "data")), tmp_path / "first")
    root = tmp_path / "data"
    if changed == "root":
        shutil.copytree(root, root := tmp_path / "copy")
    if changed == "depth":
        rewrite(root / "room" / "frame-000002.depth.png")
    model = Slope(slope=0.5 if changed == "setting" else 1.0, eps=0.1 if changed == "part" else 1e-5)
    precision = {"precision": "bf16-mixed"} if changed == "precision" else {}
    evaluation = VideoDepth(model, resume=str(tmp_path / "first"))
    evaluated(evaluation, from_files(TSDFFusion(root)), tmp_path / "second", **precision)
    assert model.steps == (0 if changed == "nothing" else 4)


def test_a_model_that_has_run_is_the_same(tmp_path):
    write_tsdf_fusion(tmp_path / "data" / "room", 4)
    model = Slope()
    for resume in (None, str(tmp_path / "logs")):
        evaluated(VideoDepth(model, resume=resume), from_files(TSDFFusion(tmp_path / "data")), tmp_path / "logs")
    assert model.steps == 4


def test_another_version_of_the_library_counts(tmp_path, monkeypatch):
    evaluated(VideoDepth(Slope()), data(three()), tmp_path)
    monkeypatch.setattr("omnistream.evaluation.environment.__version__", "99.0")
    model = Slope()
    evaluated(VideoDepth(model, resume=str(tmp_path)), data(three()), tmp_path / "again")
    assert model.steps == 15


def test_all_arguments_of_a_reader_count(tmp_path):
    write_scannet(tmp_path, 2)
    readers = [
        NYUv2Video(tmp_path), NYUv2Video(tmp_path, crop=False), ScanNet(tmp_path), ScanNet(tmp_path, all_frames=True),
        WorldVideos(1, 4), WorldVideos(1, 4, seed=1), WorldVideos(1, 4, size=(32, 32)),
    ]  # fmt: skip
    found = [origins.videos_origin(reader) for reader in readers]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
    assert found[2] == origins.videos_origin(ScanNet(tmp_path))

import hashlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
from action_files import write_kinetics
from lightning import LightningModule
from nyu_files import write_labeled, write_split_folder
from probes import ColourProbe, Colours, backbone, trainer
from torch import nn
from torch.utils.data import DataLoader

from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.data.images import NYUv2DataModule
from omnistream.data.videos.action_data import KineticsData
from omnistream.evaluation import EvaluationResult, MetricValue, ResultsWriter
from omnistream.evaluation.environment import weights_sha256
from omnistream.evaluation.results import ClassScores, broken_files, count_samples
from omnistream.metrics import AbsoluteTrajectoryError, TopKAccuracy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def data():
    return EvaluationDataModule(train=Colours(48), test=Colours(9, 100), holdout=0.25, batch_size=4)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = trainer(folder, ResultsWriter(), max_epochs=2)
    run.fit(ColourProbe(backbone(), lrs=(1e-1, 1e-7)), data())
    run.save_checkpoint(folder / "probe.ckpt")
    run.test(ColourProbe(backbone(), lrs=(1e-1, 1e-7)), data(), ckpt_path=folder / "probe.ckpt", verbose=False)
    return folder, run


def test_scores_of_classes_are_read_as_they_were_written(tmp_path):
    scores = ClassScores.of("iou", ("sky", "sea"), torch.tensor([math.nan, 0.25]), torch.tensor([0, 7]), "pixels")
    result = EvaluationResult(protocol="a", metrics={}, num_samples=1, per_class=scores)
    result.write(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())["per_class"]
    expected = {"metric": "iou", "names": ["sky", "sea"], "values": ["nan", 0.25], "counts": [0, 7], "unit": "pixels"}
    assert content == expected
    again = EvaluationResult.read(tmp_path / "results.json").per_class
    assert (again.names, again.counts, again.values[1]) == (scores.names, scores.counts, 0.25)
    assert math.isnan(again.values[0])
    with pytest.raises(ValueError, match="as many of each, got 1 names, 2 values and 2 counts"):
        ClassScores.of("iou", ["sky"], torch.zeros(2), torch.zeros(2, dtype=torch.int64), "pixels")


def test_a_test_writes_what_was_evaluated_and_how(tested):
    folder, run = tested
    content = json.loads((folder / "results.json").read_text())
    assert content["schema"] == "omnistream/results/1"
    assert content["protocol"] == "toy/colours"
    assert content["num_samples"] == 9  # the last batch is smaller
    assert content["skipped"] == 0
    accuracy = content["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(float(run.callback_metrics["test/accuracy"]))
    assert accuracy["higher_is_better"] is True
    share = accuracy["value"]
    assert accuracy["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 8), abs=1e-6)
    assert content["selection"]["setting"] == content["settings"]["sweep"][content["selection"]["index"]]
    assert content["settings"]["data"] == {
        "class": "EvaluationDataModule", "batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "seed": 0,
        "endless": False, "holdout": 0.25,
    }  # fmt: skip
    assert content["model"]["weights_sha256"] == weights_sha256(backbone())
    assert content["model"]["parameters"] == sum(p.numel() for p in backbone().parameters())
    digest = hashlib.sha256((folder / "probe.ckpt").read_bytes()).hexdigest()
    assert content["checkpoint"] == {"path": str(folder / "probe.ckpt"), "sha256": digest}
    assert {"versions", "machine", "processes", "precision", "command", "date"} == set(content["environment"])
    assert 0 < content["wall_time_seconds"] < 60


def test_a_result_is_read_as_it_was_written(tmp_path):
    metrics = {
        "a": MetricValue(value=math.nan, higher_is_better=None),
        "b": MetricValue(value=0.5, higher_is_better=True),
    }
    result = EvaluationResult(protocol="x/y", metrics=metrics, num_samples=3, settings={"sizes": (1, 2)})
    result.write(tmp_path / "deep" / "results.json")
    again = EvaluationResult.read(tmp_path / "deep" / "results.json")
    assert math.isnan(again.metrics["a"].value)
    assert again.metrics["b"] == metrics["b"]
    assert again.settings == {"sizes": [1, 2]}
    (tmp_path / "other.json").write_text('{"schema": "another"}')
    with pytest.raises(ValueError, match="not a results file"):
        EvaluationResult.read(tmp_path / "other.json")


def test_other_modules_report_what_they_log(tmp_path):
    class Logs(LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(1, 1)
            self.metrics = nn.ModuleDict({"top1": TopKAccuracy()})

        def test_step(self, batch, batch_idx):
            self.log_dict({"test/a/top1": 0.5, "test/a/loss": 2.0, "test/a/entropy": 1.0, "val/x": 9.0}, batch_size=1)

    writer = ResultsWriter(tmp_path / "mine.json", protocol="logs")
    samples = [Colours(3)[i] for i in range(3)]
    trainer(tmp_path, writer).test(Logs(), DataLoader(samples, 2, collate_fn=FrameClip.collate), verbose=False)
    found = EvaluationResult.read(tmp_path / "mine.json")
    assert (found.protocol, found.num_samples) == ("logs", 3)
    assert {name: (one.value, one.higher_is_better) for name, one in found.metrics.items()} == {
        "a/top1": (0.5, True), "a/loss": (2.0, False), "a/entropy": (1.0, None),
    }  # fmt: skip


def test_what_was_left_out_is_counted(tmp_path):
    class Trajectories(ColourProbe):
        """Predicts the true camera path; a class of clips has a reference that does not move."""

        def targets(self, batch):
            steps = torch.arange(4.0) * (batch.label > 0)[:, None]
            poses = torch.eye(4).repeat(len(steps), 4, 1, 1)
            poses[..., 0, 3] = steps
            return poses

        def predict(self, head, features):
            return torch.eye(4).repeat(len(features), 4, 1, 1)

        def metrics(self):
            return {"ate_m": AbsoluteTrajectoryError()}

    class SomeBroken(Colours):
        broken_files = SimpleNamespace(count=2)

    writer = ResultsWriter(tmp_path / "results.json")
    data = EvaluationDataModule(test=SomeBroken(9), batch_size=4)
    trainer(tmp_path, writer).test(Trajectories(backbone()), data, verbose=False)
    assert writer.result.skipped == 3 + 2  # every third clip stands still
    assert writer.result.metrics["ate_m"].value == pytest.approx(math.sqrt(1.25))  # of 0, 1, 2, 3 about their mean
    assert broken_files({"a": [DataLoader(SomeBroken(3)), None], "b": DataLoader(SomeBroken(3))}) == 4


def test_annotated_videos_without_a_file_count_as_left_out(tmp_path):
    write_kinetics(tmp_path / "k400")
    next((tmp_path / "k400" / "val").rglob("*.mp4")).unlink()
    writer = ResultsWriter(tmp_path / "results.json")
    data = KineticsData(tmp_path / "k400", num_frames=2, stride=1, size=32, num_views=1, batch_size=4)

    class Views(ColourProbe):
        def features(self, batch):
            return self.backbone(self.backbone.normalize(batch.images[:, 0])).cls.mean(1)

    trainer(tmp_path, writer).test(Views(backbone()), data, verbose=False)
    assert (writer.result.num_samples, writer.result.skipped) == (5, 1)
    options = writer.result.settings["data"]
    assert (options["class"], options["size"], options["clips"]["num_frames"]) == ("KineticsData", 32, 2)


@pytest.mark.parametrize(("layout", "protocol"), [("split", "toy/colours"), ("labeled", "toy/colours_labeled")])
def test_a_layout_that_trains_on_other_images_has_another_protocol(tmp_path, layout, protocol):
    (write_labeled if layout == "labeled" else write_split_folder)(tmp_path / "nyu")
    writer, images = ResultsWriter(tmp_path / "results.json"), NYUv2DataModule(tmp_path / "nyu", layout=layout)

    class Shades(ColourProbe):
        def features(self, batch):
            return self.backbone(self.backbone.normalize(batch.image[:, None, :, :48, :64])).cls.mean(1)

        def targets(self, batch):
            return torch.zeros(len(batch.image), dtype=torch.long)

    trainer(tmp_path, writer).test(Shades(backbone()), images, verbose=False)
    assert writer.result.protocol == protocol
    assert writer.result.settings["data"]["layout"] == layout


def test_samples_of_nested_batches():
    clips = FrameClip.collate([Colours(3)[i] for i in range(3)])
    assert count_samples(clips) == 3
    assert count_samples({"ssl": {"image": None, "video": clips}, "geometry": None}) == 3
    assert count_samples((torch.zeros(5, 2), torch.zeros(5))) == 5
    assert count_samples(None) == 0


def test_fingerprint_depends_on_values_names_and_types():
    base = weights_sha256(nn.Linear(2, 2).requires_grad_(False).to(torch.bfloat16))
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    first = weights_sha256(layer)
    assert first == weights_sha256(layer)
    with torch.no_grad():
        layer.bias[0] += 1e-6
    assert len({base, first, weights_sha256(layer), weights_sha256(nn.Sequential(layer))}) == 4

import json
import time

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from omnistream.callbacks import FinalReport, TaskProgressBar, Throughput, ValidationPlots
from omnistream.callbacks.progress import FRAMES_PER_SECOND, count_frames
from omnistream.data.batch import FrameClip, ViewBatch
from omnistream.plots import draw
from omnistream.plots.collect import collect_plots
from omnistream.report import MetricRow
from omnistream.tasks.plots import CaptionItem, CaptionPlot, FeaturesPlot


def clips(batch):
    """A batch of clips [B=2, T=3, 3, 16, 16] that depends on `batch`."""
    images = torch.full((2, 3, 3, 16, 16), 10 * batch, dtype=torch.uint8)
    images[:, :, :, :8] = 200
    return FrameClip(images=images, label=torch.zeros(2).long(), name=["a", "b"], seed=torch.zeros(2).long())


class Task(nn.Module):
    def __init__(self, broken=False):
        super().__init__()
        self.broken = broken

    def plots(self, backbone, batch, limit):
        assert not torch.is_grad_enabled()
        assert not self.training
        torch.rand(1)  # random state is to be restored by the caller
        features = backbone(batch.images.float().mean(dim=2, keepdim=True).unfold(3, 4, 4).unfold(4, 4, 4).flatten(-2))
        features = features[:, :, 0] * (torch.nan if self.broken else 1)
        return {f"pca/{i}": FeaturesPlot(images=batch.images[i], features=features[i]) for i in range(limit)}


class Module(LightningModule):
    """Two tasks, one of which can draw, in the shape of a multi-task module."""

    def __init__(self, broken=False):
        super().__init__()
        self.backbone = nn.Linear(16, 6)
        self.tasks = nn.ModuleDict({"a": Task(broken), "b": nn.Identity()})
        self.draws = []

    def training_step(self, batch, batch_idx):
        loss = self.backbone(batch["a"].images[..., 0].float() / 255).square().mean()
        self.log_dict({"train/a/loss": loss, "train/b/video/loss": 2 * loss, "train/b/video/term": loss})
        self.draws.append(float(torch.rand(1)))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/a/loss", float(self.global_step), batch_size=1)

    def metric_rows(self):
        return [MetricRow(name="module result", value=1.0, at_most=2.0)]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def train_dataloader(self):
        return DataLoader([{"a": clips(i)} for i in range(6)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([{"a": clips(i), "b": None} for i in range(2)], batch_size=None)


class Measured(Callback):
    def metric_rows(self):
        return [MetricRow(name="callback result", value=3.0, at_most=2.0)]


def fit(folder, *callbacks, module=None, logger=None, **options):
    settings = {"max_steps": 6, "val_check_interval": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 1} | options
    trainer = Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="run") if logger is None else logger,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        **({"enable_progress_bar": False} | settings),
    )
    torch.manual_seed(0)
    module = module or Module()
    trainer.fit(module)
    return trainer, module


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class TestValidationPlots:
    def test_files_and_tensorboard(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        trainer, module = fit(tmp_path, ValidationPlots(num_samples=1))
        folder = tmp_path / "run" / "version_0" / "plots"
        assert [path.name for path in sorted(folder.iterdir())] == [f"a-pca-0--step{i:08d}.png" for i in (2, 4, 6)]
        with torch.no_grad():
            expected = draw(collect_plots(module.eval(), {"a": clips(0)}, 1)["a/pca/0"])  # of the first batch
        with Image.open(folder / "a-pca-0--step00000006.png") as image:
            assert np.array_equal(np.asarray(image), expected)
            assert image.info["Title"] == "A: pca, sample 1"
            assert image.info["Description"].endswith("Step 6.")
        events = EventAccumulator(trainer.log_dir, size_guidance={"images": 0})
        events.Reload()
        assert events.Tags()["images"] == ["val/a/pca/0"]
        assert [event.step for event in events.Images("val/a/pca/0")] == [2, 4, 6]

    def test_every_second_validation(self, tmp_path):
        callback = ValidationPlots(every_n_validations=2)
        fit(tmp_path, callback)
        names = {path.name for path in (tmp_path / "run" / "version_0" / "plots").iterdir()}
        assert names == {f"a-pca-{sample}--step0000000{step}.png" for sample in (0, 1) for step in (2, 6)}
        assert callback.state_dict() == {"validations": 3}
        other = ValidationPlots(every_n_validations=2)
        other.load_state_dict(callback.state_dict())
        assert other.state_dict() == {"validations": 3}

    def test_does_not_change_the_run(self, tmp_path):
        _, plain = fit(tmp_path / "a")
        _, drawn = fit(tmp_path / "b", ValidationPlots())
        assert plain.draws == drawn.draws
        assert torch.equal(plain.backbone.weight, drawn.backbone.weight)

    def test_an_error_in_drawing_is_logged_and_raised(self, tmp_path, caplog):
        with pytest.raises(ValueError, match="NaN"):
            fit(tmp_path, ValidationPlots(), module=Module(broken=True))
        assert "drawing a/pca/0 (FeaturesPlot) at step 2 failed" in caplog.text

    def test_a_module_that_draws_itself_is_asked_as_it_is(self):
        class Alone(LightningModule):
            def __init__(self):
                super().__init__()
                self.backbone = nn.Identity()

            def plots(self, backbone, batch, limit):
                assert backbone is self.backbone
                return {str(i): batch for i in range(limit)}

        module, plot = (
            Alone(),
            CaptionPlot(items=(CaptionItem(images=clips(0).images[0], truth="", generated=""),)),
        )
        assert collect_plots(module, plot, 2) == {"0": plot, "1": plot}

    def test_says_when_it_has_no_effect(self, tmp_path):
        module = Module()
        del module.tasks["a"]
        with pytest.warns(UserWarning, match="no effect"):
            fit(tmp_path, ValidationPlots(), module=module)

    @pytest.mark.parametrize("arguments", [{"every_n_validations": 0}, {"num_samples": 0}])
    def test_wrong_numbers(self, arguments):
        with pytest.raises(ValueError, match="at least 1"):
            ValidationPlots(**arguments)


class TestFinalReport:
    @pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
    def test_page_of_a_run(self, tmp_path, kind):
        logger = kind(tmp_path, name="run")
        callbacks = [ValidationPlots(num_samples=1), Measured(), FinalReport(title="A <run>")]
        trainer, _ = fit(tmp_path, *callbacks, logger=logger)
        text = (tmp_path / "run" / "version_0" / "report.html").read_text()
        numbers = json.loads((tmp_path / "run" / "version_0" / "report.json").read_text())
        verdicts = {row["name"]: (row["value"], row["verdict"]) for row in numbers["results"]}
        assert verdicts["module result"] == (1.0, "pass")
        assert verdicts["callback result"] == (3.0, "fail")
        assert verdicts["A: loss"] == (6.0, "no bound")
        assert text.count("data:image/png;base64,") == 2  # the newest plot and the curves
        assert "Step 6." in text
        assert "Step 4." not in text
        assert "A &lt;run&gt;" in text
        assert numbers["info"]["optimiser steps"] == "6"
        assert numbers["info"]["backbone"] == "Linear, 102 parameters"
        assert f"torch {torch.__version__}" in numbers["info"]["versions"]
        assert trainer.global_step == 6

    def test_configuration_is_shown(self, tmp_path):
        logger = CSVLogger(tmp_path, name="run")
        folder = tmp_path / "run" / "version_0"
        folder.mkdir(parents=True)
        logger = CSVLogger(tmp_path, name="run", version=0)
        (folder / "config.yaml").write_text("model:\n  name: <tiny>\n")
        fit(tmp_path, FinalReport(), logger=logger)
        assert "name: &lt;tiny&gt;" in (folder / "report.html").read_text()

    def test_says_where_the_page_of_this_run_is(self, tmp_path, caplog):
        with caplog.at_level("INFO", "lightning.pytorch"):
            for version in range(2):
                fit(tmp_path, FinalReport(), logger=CSVLogger(tmp_path, name="run", version=version))
        pages = [line for line in caplog.messages if line.startswith("The page of this run: ")]
        assert pages == [f"The page of this run: {tmp_path}/run/version_{v}/report.html" for v in range(2)]

    def test_without_any_log(self, tmp_path):
        fit(tmp_path, FinalReport(), logger=False, default_root_dir=str(tmp_path))
        assert "there are no curves" in (tmp_path / "report.html").read_text()


class TestThroughput:
    def test_frames_of_nested_batches(self):
        views = ViewBatch(
            global_crops=torch.zeros(4, 2, 5, 3, 8, 8, dtype=torch.uint8),
            local_crops=torch.zeros(4, 6, 5, 3, 4, 4, dtype=torch.uint8),
            seed=torch.zeros(4).long(),
            name=["x"] * 4,
        )
        assert count_frames(views) == 20
        assert count_frames({"ssl": {"video": views}, "geometry": clips(0), "captioning": None}) == 26
        assert count_frames([clips(0), clips(1)]) == 12
        with pytest.raises(TypeError, match="expected a batch with images"):
            count_frames("images")

    def test_rate_without_validation(self, tmp_path):
        class Slow(Callback):
            def on_train_batch_start(self, *args):
                time.sleep(0.05)

            def on_validation_epoch_start(self, *args):
                time.sleep(0.5)

        # 6 frames a step of at least 0.05 s; counting validation would give less than 6 / 0.25
        trainer, _ = fit(tmp_path, Slow(), Throughput())
        rate = float(trainer.callback_metrics[FRAMES_PER_SECOND])
        assert 30 < rate < 120

    def test_window_must_be_positive(self):
        with pytest.raises(ValueError, match="at least 1"):
            Throughput(window=0)


class TestProgressBar:
    def test_shows_tasks_rate_and_learning_rate(self, tmp_path):
        bar = TaskProgressBar()
        trainer, module = fit(tmp_path, Throughput(), bar, enable_progress_bar=True)
        shown = bar.get_metrics(trainer, module)
        assert list(shown) == ["a", "b/video", "lr", "frames/s"]
        assert shown["lr"] == "1.0e-03"
        assert float(shown["b/video"]) == pytest.approx(2 * float(shown["a"]), rel=0.02)
        assert float(shown["a"]) == pytest.approx(float(trainer.callback_metrics["train/a/loss"]), rel=0.01)

    def test_other_progress_numbers_follow(self, tmp_path):
        class Extra(Module):
            def training_step(self, batch, batch_idx):
                self.log("accuracy", 0.5, prog_bar=True)
                self.log("train/loss", 1.25, prog_bar=True)
                return super().training_step(batch, batch_idx)

        bar = TaskProgressBar()
        trainer, module = fit(tmp_path, bar, module=Extra(), enable_progress_bar=True)
        shown = bar.get_metrics(trainer, module)
        assert shown["loss"] == "1.25"
        assert shown["accuracy"] == 0.5
        assert "train/loss" not in shown

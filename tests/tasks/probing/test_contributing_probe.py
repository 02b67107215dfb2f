"""The probe that CONTRIBUTING.md shows how to write works as printed, from the command line to `results.json`."""

import re
import sys

import pytest
from processes import REPOSITORY

from omnistream.cli import main
from omnistream.evaluation import EvaluationResult

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def toy_probe(tmp_path, monkeypatch):
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class ToyProbe" in code]
    (config,) = [code for code in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if "ToyProbe" in code]
    (tmp_path / "toy_probe.py").write_text(code)
    (tmp_path / "toy_probe.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    yield tmp_path
    sys.modules.pop("toy_probe", None)


SMALL = [
    "-c", "toy_probe.yaml", "--model.backbone.variant=vit_nano",
    "--data.train.num_samples=30", "--data.test.num_samples=13",
    "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger",
    "--trainer.logger.init_args.save_dir=runs", "--trainer.logger.init_args.name=toy",
]  # fmt: skip


def test_from_the_command_line_to_the_results(toy_probe):
    main(["fit", *SMALL])
    (checkpoint,) = (toy_probe / "runs").rglob("*.ckpt")
    main(["test", *SMALL, "--ckpt_path", str(checkpoint)])
    (path,) = (toy_probe / "runs").rglob("results.json")
    found = EvaluationResult.read(path)
    assert found.protocol == "toy/world"
    assert found.num_samples == 13
    assert set(found.metrics) == {"top1", "top5"}
    assert 0 <= found.metrics["top1"].value <= found.metrics["top5"].value <= 1
    assert found.metrics["top1"].stderr is not None
    assert found.selection["on"] == "val"
    assert found.settings["sweep"] == [{"lr": 1e-3}, {"lr": 1e-2}]

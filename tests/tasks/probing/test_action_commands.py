"""The action probes from the command line, on small copies of the data sets."""

import json
import sys

import pytest
import torch
from action_files import write_csv, write_kinetics, write_something

from omnistream.cli import main
from omnistream.commands.overrides import prepare
from omnistream.commands.train import OmniStreamCLI

SMALL = [
    "--model.backbone.variant=vit_nano",
    "--model.frames_per_segment=2",
    "--model.probe.num_layers=2",
    "--model.probe.num_heads=2",
    "--model.probe.lrs=[1e-2, 1e-8]",
    "--data.num_frames=2",
    "--data.stride=1",
    "--data.size=32",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    return tmp_path


def small(root, num_classes, epochs):
    steps = ["--data.batch_size=3", "--trainer.accumulate_grad_batches=1", f"--trainer.max_epochs={epochs}"]
    return [*SMALL, *steps, f"--data.root={root}", f"--model.num_classes={num_classes}"]


def test_kinetics_fit_resume_validate_and_test(place):
    write_kinetics(place / "k400")
    (victim,) = (place / "k400" / "val").rglob("-_v001*.mp4")
    victim.write_bytes(b"broken")
    options = [*small("k400", 3, 6), "--data.augment=false"]
    main(["fit", "-c", "action/k400", *options, "--trainer.max_epochs=3"])
    main(["fit", "-c", "action/k400", *options, "--ckpt_path=last"])
    run = place / "runs" / "action_k400" / "version_1"
    checkpoint = torch.load(next(run.rglob("last.ckpt")), weights_only=True)
    assert checkpoint["epoch"] == 5
    assert not any(key.startswith("backbone.") for key in checkpoint["state_dict"])
    main(["validate", "-c", "action/k400", *options, "--ckpt_path", str(run)])
    main(["test", "-c", "action/k400", *options, "--ckpt_path", str(run)])
    (file,) = place.rglob("results.json")
    results = json.loads(file.read_text())
    assert results["protocol"] == "action/k400"
    assert (results["num_samples"], results["skipped"]) == (5, 1)
    assert results["metrics"]["accuracy"]["value"] == 1.0
    assert results["metrics"]["accuracy_majority"]["value"] == pytest.approx(2 / 5)
    assert results["selection"]["setting"] == {"lr": 1e-2, "weight_decay": 0.01}
    assert results["settings"]["frames_per_segment"] == 2
    classes = results["per_class"]
    assert (classes["metric"], classes["unit"], len(classes["names"])) == ("accuracy", "samples", 3)
    assert (classes["values"], sum(classes["counts"])) == ([1.0] * 3, 5)
    assert [path.name for path in (file.parent / "examples").glob("results-*")] == ["results-confusion.png"]


def test_something_something_fit_and_test(place):
    write_something(place / "ssv2")
    options = small("ssv2", 2, 2)
    main(["fit", "-c", "action/ssv2", *options])
    main(["test", "-c", "action/ssv2", *options, "--ckpt_path", "runs/action_ssv2/version_0"])
    results = json.loads(next(place.rglob("results.json")).read_text())
    assert results["protocol"] == "action/ssv2"
    assert results["num_samples"] == 4
    assert results["metrics"]["accuracy_majority"]["value"] == 0.5


def test_mistakes_are_one_line(place, capsys):
    write_kinetics(place / "k400", per_class=1, splits=("train", "val"))
    for options, message in [
        (small("k400", 400, 1), r"model.num_classes is 400, but k400 has 3 classes"),
        (small("nowhere", 3, 1), r"no such folder: nowhere; expected annotations/"),
    ]:
        with pytest.raises(SystemExit):
            main(["fit", "-c", "action/k400", *options])
        errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
        assert message in errors[-1]
    write_csv(place / "k400" / "annotations" / "val.csv", [("", "-_v000_a-bc", 0, 10, "val")])
    with pytest.raises(SystemExit):
        main(["fit", "-c", "action/k400", *small("k400", 3, 1)])
    assert "1 of 1 videos of the val split have no label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "num_classes", "segments", "lrs", "root"),
    [
        ("k400", 400, 8, (1e-4, 3e-4), "data/kinetics400"),
        ("ssv2", 174, 2, (3e-4,), "data/something-something-v2"),
    ],
)
def test_packaged_settings_are_the_papers(name, num_classes, segments, lrs, root):
    overrides = ["--trainer.logger=false", "--model.backbone.variant=vit_nano", "--trainer.precision=32-true"]
    cli = OmniStreamCLI(args=prepare(["-c", f"action/{name}", *overrides]), run=False)
    model, data = cli.model, cli.datamodule
    assert (model.num_classes, model.probe.lrs, model.probe.weight_decays) == (num_classes, lrs, (0.01,))
    assert (model.probe.num_layers, model.probe.num_heads, model.probe.num_positions) == (4, 16, None)
    assert (model.protocol, model.frames_per_segment, model.attend_across_segments) == (f"action/{name}", 16, True)
    assert data.clips["num_segments"] == segments
    assert (data.clips["num_frames"], data.clips["stride"], data.clips["short_side"]) == (16, 4, None)
    assert (data.views.size, data.views.num_views, data.augmentation.crop.size) == (256, 3, (256, 256))
    assert data.root == root
    assert data.batch_size * cli.trainer.accumulate_grad_batches == 256
    assert cli.trainer.max_epochs == 20

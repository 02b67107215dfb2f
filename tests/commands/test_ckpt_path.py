"""`--ckpt_path`: run folders, `last`, tasks that are left out, checkpoints of other models, and none at all."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from cli_dummies import error_of
from safetensors.torch import save_file
from small_model import CONFIG

from omnistream.cli import main

RUN = Path("runs/small/version_0")
LAST = RUN / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a configuration and the run of one step."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["omnistream"])
        Path("run.yaml").write_text(CONFIG)
        main(["fit", "-c", "run.yaml"])
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, as working directory."""
    copy = tmp_path / "work"
    shutil.copytree(trained, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    return copy


@pytest.fixture
def run(capsys, caplog):
    """Runs a command that succeeds, and returns what it said."""

    def run(subcommand: str, *arguments: str) -> str:
        capsys.readouterr()
        caplog.clear()
        with caplog.at_level("INFO", "lightning.pytorch"):
            main([subcommand, "-c", "run.yaml", *arguments])
        return "\n".join([*caplog.messages, capsys.readouterr().err])

    return run


def last_step(run_folder: str) -> int:
    return torch.load(Path("runs/small") / run_folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


class TestWhich:
    @pytest.mark.parametrize("given", [RUN, RUN / "checkpoints", LAST, "$RUNS/version_0", "last"])
    def test_training_goes_on(self, folder, run, monkeypatch, given):
        monkeypatch.setenv("RUNS", "runs/small")
        error = run("fit", f"--ckpt_path={given}", "--trainer.max_steps=2")
        assert f"from the checkpoint path at {LAST}" in error
        assert last_step("version_1") == 2
        assert ("--ckpt_path last is runs/small/version_0" in error) == (given == "last")

    def test_last_is_the_run_that_was_saved_last(self, folder, run):
        run("fit", "--ckpt_path=last", "--trainer.max_steps=2")
        (folder / "runs/small/version_2/checkpoints").mkdir(parents=True)  # a run that saved nothing
        assert "--ckpt_path last is runs/small/version_1" in run("validate", "--ckpt_path=last")
        os.utime(LAST, (2**33, 2**33))
        assert "--ckpt_path last is runs/small/version_0" in run("validate", "--ckpt_path=last")

    @pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
    def test_last_never_starts_from_scratch(self, folder, capsys, subcommand):
        line = error_of(
            capsys, subcommand, "-c", "run.yaml", "--ckpt_path", "last", "--trainer.logger.init_args.name=other"
        )
        assert line == (
            "--ckpt_path last: no run of this configuration has saved a checkpoint in runs/other; leave it out to "
            "start a new run"
        )
        assert not Path("runs/other").exists()

    def test_last_with_other_places(self, folder, run):
        shutil.copytree(RUN, "elsewhere/run")
        kept = "--trainer.callbacks.dirpath=elsewhere/run/checkpoints"
        assert "last is elsewhere/run/checkpoints/last.ckpt" in run("validate", "--ckpt_path=last", kept)
        fixed = ["--trainer.logger.save_dir=elsewhere", "--trainer.logger.name=null", "--trainer.logger.version=run"]
        assert "last is elsewhere/run/checkpoints/last.ckpt" in run("validate", "--ckpt_path=last", *fixed)
        without = ["--trainer.logger=false", "--trainer.default_root_dir=elsewhere/run"]
        assert "last is elsewhere/run/checkpoints/last.ckpt" in run("validate", "--ckpt_path=last", *without)

    def test_nothing_there(self, folder, capsys):
        (folder / "empty").mkdir()
        line = error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path", "gone")
        assert line == "--ckpt_path: no checkpoint and no run folder at gone"
        line = error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path", "empty")
        assert line.startswith("--ckpt_path: no checkpoint (")


class TestWeights:
    @pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
    def test_random_ones_are_refused_or_announced(self, folder, run, capsys, subcommand):
        line = error_of(capsys, subcommand, "-c", "run.yaml")
        assert line.startswith(f"{subcommand} needs weights: give --ckpt_path with a checkpoint, a run folder or last")
        nothing_to_write = "--trainer.callbacks+=stopping.NoWriter"
        error = run(subcommand, "--random", nothing_to_write)
        assert error.count("--random: the weights of this model are random, so its results are meaningless") == 1

    def test_random_is_no_option_of_training(self, folder, capsys):
        assert error_of(capsys, "fit", "-c", "run.yaml", "--random").startswith(
            "--random is for validate, test, predict"
        )

    def test_init_from_is_enough(self, folder, run):
        run("validate", f"--model.init_from={LAST}")

    @pytest.mark.parametrize("subcommand", ["fit", "validate"])
    def test_another_size(self, folder, capsys, subcommand):
        line = error_of(capsys, subcommand, "-c", "run.yaml", "--model.width=3", f"--ckpt_path={RUN}")
        assert line.startswith(
            f"--ckpt_path {LAST}: Error(s) in loading state_dict for Model: size mismatch for backbone"
        )
        assert line.endswith(f"; its own configuration is {RUN / 'config.yaml'}")

    def test_missing_weights(self, folder, capsys):
        content = torch.load(LAST, weights_only=True)
        del content["state_dict"]["backbone.weight"]
        torch.save(content, "cut.ckpt")
        line = error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path=cut.ckpt")
        assert line.startswith("--ckpt_path cut.ckpt: Error(s) in loading state_dict for Model: Missing key(s)")

    def test_weights_that_the_model_lacks(self, folder, capsys):
        content = torch.load(LAST, weights_only=True)
        content["state_dict"]["backbone.more"] = torch.ones(1)
        torch.save(content, "more.ckpt")
        line = error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path=more.ckpt")
        assert 'Unexpected key(s) in state_dict: "backbone.more"' in line

    def test_files_that_are_no_checkpoints(self, folder, capsys):
        save_file({"norm.weight": torch.ones(1)}, "weights.safetensors")
        line = error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path=weights.safetensors")
        assert "not a checkpoint of `omnistream fit`. Weights of a backbone go to --model.backbone.checkpoint" in line
        Path("noise.ckpt").write_bytes(b"noise")
        assert "noise.ckpt" in error_of(capsys, "validate", "-c", "run.yaml", "--ckpt_path=noise.ckpt")

    @pytest.mark.parametrize("subcommand", ["fit", "validate"])
    @pytest.mark.parametrize("address", ["https://example.org/last.ckpt", "http://example.org/a", "file://{}"])
    def test_an_address_is_refused_and_its_file_not_opened(self, folder, capsys, monkeypatch, subcommand, address):
        def opened(*_, **__):
            raise AssertionError("read from an address")

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", opened)
        address = address.format(LAST.absolute())
        line = error_of(capsys, subcommand, "-c", "run.yaml", f"--ckpt_path={address}")
        assert line == (
            f"--ckpt_path {address}: checkpoints are read from files only; download it first and give the file"
        )

    @pytest.mark.parametrize("subcommand", ["fit", "validate"])
    def test_weights_that_lightning_did_not_write(self, folder, capsys, subcommand):
        torch.save({"state_dict": torch.load(LAST, weights_only=True)["state_dict"]}, "theirs.ckpt")
        line = error_of(capsys, subcommand, "-c", "run.yaml", "--ckpt_path=theirs.ckpt")
        assert line == (
            "--ckpt_path: theirs.ckpt is not a checkpoint of `omnistream fit`. Weights of a backbone go to "
            "--model.backbone.checkpoint, those of a whole model to --model.init_from"
        )

    @pytest.mark.parametrize("key", ["optimizer_states", "loops"])
    def test_weights_alone_can_be_evaluated_but_not_trained_on(self, folder, run, capsys, key):
        content = torch.load(LAST, weights_only=True)
        del content[key]
        torch.save(content, "weights.ckpt")
        run("validate", "--ckpt_path=weights.ckpt")
        line = error_of(capsys, "fit", "-c", "run.yaml", "--ckpt_path=weights.ckpt")
        assert line == (
            f"--ckpt_path: weights.ckpt holds weights but no {key}, so training cannot go on from it; start a new run "
            "with --model.init_from in place of --ckpt_path"
        )


class TestFolders:
    def test_an_evaluation_writes_beside_its_checkpoint(self, folder, run):
        for _ in range(2):
            run("validate", f"--ckpt_path={LAST}")
        assert sorted(path.name for path in Path("runs/small").iterdir()) == ["version_0"]
        written = {path.name for path in (RUN / "validate").iterdir()}
        assert "config.yaml" in written
        assert sum(name.startswith("events.out") for name in written) == 2
        assert not list(RUN.glob("config.*.yaml"))  # that of the run is left alone

    def test_a_checkpoint_of_no_run(self, folder, run):
        Path("loose").mkdir()
        shutil.copy(LAST, "loose/last.ckpt")
        run("test", "--ckpt_path=loose/last.ckpt")
        assert sorted(path.name for path in Path("runs/small").iterdir()) == ["test", "version_0"]
        assert [path.name for path in Path("loose").iterdir()] == ["last.ckpt"]

    def test_a_version_that_is_given_is_kept(self, folder, run):
        run("validate", f"--ckpt_path={LAST}", "--trainer.logger.version=mine")
        assert sorted(path.name for path in Path("runs/small").iterdir()) == ["mine", "version_0"]

    def test_a_run_that_fails_before_its_first_step_leaves_nothing(self, folder, capsys):
        line = error_of(capsys, "fit", "-c", "run.yaml", "--data.broken=true")
        assert line == "no clips there"
        assert sorted(path.name for path in Path("runs/small").iterdir()) == ["version_0"]
        error_of(capsys, "fit", "-c", "run.yaml", "--data.broken=true", "--trainer.logger.name=new")
        assert not Path("runs/new").exists()

    def test_a_run_that_fails_later_is_kept(self, folder, capsys):
        fails = "--trainer.callbacks+={class_path: stopping.Fail, init_args: {step: 2}}"
        error_of(capsys, "fit", "-c", "run.yaml", "--trainer.max_steps=3", fails)
        assert last_step("version_1") == 1
        # Also where the first step of a resumed run fails.
        error_of(capsys, "fit", "-c", "run.yaml", "--trainer.max_steps=3", fails, "--ckpt_path=last")
        assert sorted(path.name for path in Path("runs/small").iterdir()) == ["version_0", "version_1"]

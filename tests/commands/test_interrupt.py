"""Ctrl-C and SIGTERM: what is saved, what is said, and that training goes on as if nothing had happened."""

import csv
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from stopping import CONFIG

from omnistream.cli import main

RUNS = Path("runs/small")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    Path("run.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Weights and validations of the run that nothing stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        patch.setattr(sys, "argv", ["omnistream"])
        Path("run.yaml").write_text(CONFIG)
        main(["fit", "-c", "run.yaml"])
        return weights("version_0"), validations("version_0")


def check_same(run: str, expected: dict[str, torch.Tensor]) -> None:
    found = weights(run)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def stopped(capsys, subcommand, *arguments, hook, call=1, number=signal.SIGTERM):
    """Exit code and lines of stderr of a command that signals itself."""
    settings = f"{{hook: {hook}, call: {call}, number: {int(number)}}}"
    callback = f"--trainer.callbacks+={{class_path: stopping.Signal, init_args: {settings}}}"
    with pytest.raises(SystemExit) as caught:
        main([subcommand, "-c", "run.yaml", *arguments, callback])
    return caught.value.code, [line for line in capsys.readouterr().err.splitlines() if line]


def weights(run: str) -> dict[str, torch.Tensor]:
    return torch.load(RUNS / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def validations(run: str) -> dict[int, float]:
    with (RUNS / run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): float(row["val/geometry/loss"]) for row in rows if row.get("val/geometry/loss")}


def continue_with(lines: list[str]) -> None:
    """Run the command that was printed, without the callback that sends the signal."""
    command = shlex.split(lines[-1].removeprefix("continue with: "))
    assert command[:2] == ["omnistream", "fit"]
    main([argument for argument in command[1:] if "stopping.Signal" not in argument])


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_training_is_saved_at_the_end_of_the_step_and_goes_on_exactly(
    folder, capsys, uninterrupted, number, code, word
):
    found, lines = stopped(capsys, "fit", hook="on_train_batch_start", call=3, number=number)
    assert found == code
    assert lines[-2] == f"omnistream: {word} after step 3; saved runs/small/version_0/checkpoints/last.ckpt"
    assert torch.load("runs/small/version_0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert [path.name for path in (RUNS / "version_0" / "checkpoints").iterdir()] == ["last.ckpt"]
    continue_with(lines)
    check_same("version_1", uninterrupted[0])
    assert validations("version_1") == {3: uninterrupted[1][3]}


def test_a_validation_that_is_broken_off_is_repeated_as_a_whole(folder, capsys, uninterrupted):
    code, lines = stopped(capsys, "fit", hook="on_validation_batch_start", call=2)
    assert code == 143
    assert "after step 2; saved" in lines[-2]
    assert validations("version_0") == {}
    continue_with(lines)
    check_same("version_1", uninterrupted[0])
    assert validations("version_1") == uninterrupted[1]
    assert list(uninterrupted[1]) == [1, 3]


@pytest.mark.parametrize(("hook", "call"), [("on_train_batch_start", 3), ("on_validation_batch_start", 2)])
def test_accumulated_batches_are_completed_first(folder, capsys, hook, call):
    """The gradients of the third batch, after which there is a validation too, are in no checkpoint."""
    options = ["--model.optimizer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"]
    main(["fit", "-c", "run.yaml", *options])
    expected = weights("version_0")
    _, lines = stopped(capsys, "fit", *options, hook=hook, call=call)
    assert lines[-2] == "omnistream: terminated after step 2; saved runs/small/version_1/checkpoints/last.ckpt"
    assert int(weights("version_1")["batch_count"]) == 4
    continue_with(lines)
    check_same("version_2", expected)


@pytest.mark.parametrize("hook", ["on_fit_start", "on_sanity_check_start"])
def test_before_the_first_step_nothing_is_left(folder, capsys, hook):
    code, lines = stopped(capsys, "fit", "--trainer.num_sanity_val_steps=1", hook=hook)
    assert (code, lines[-1]) == (143, "omnistream: terminated")
    assert not Path("runs").exists()


def test_after_training_a_signal_stops_at_once(folder, capsys):
    code, lines = stopped(capsys, "fit", hook="on_fit_end", number=signal.SIGINT)
    assert code == 130
    last = RUNS / "version_0" / "checkpoints" / "last.ckpt"
    assert lines[-1] == f"omnistream: interrupted after training was finished; its newest checkpoint is {last}"
    assert last.is_file()


def test_an_older_checkpoint_is_replaced_and_no_draft_is_left(folder, capsys):
    every_step = "--trainer.callbacks.every_n_train_steps=1"
    _, lines = stopped(capsys, "fit", every_step, hook="on_train_batch_start", call=2)
    assert "saved runs/small/version_0/checkpoints/last.ckpt" in lines[-2]
    assert sorted(path.name for path in (RUNS / "version_0" / "checkpoints").iterdir()) == ["2.ckpt", "last.ckpt"]


def test_without_checkpoints_nothing_is_saved(folder, capsys):
    Path("run.yaml").write_text(CONFIG[: CONFIG.index("  callbacks:")] + "  enable_checkpointing: false\n")
    code, lines = stopped(capsys, "fit", hook="on_train_batch_start", call=2)
    assert code == 143
    assert lines[-1] == "omnistream: terminated after step 2; nothing saved, because the trainer keeps no checkpoints"


def test_an_evaluation_stops_at_once(folder, capsys):
    code, lines = stopped(capsys, "validate", "--random", hook="on_validation_batch_start", number=signal.SIGINT)
    assert (code, lines[-1]) == (130, "omnistream: interrupted")
    assert not Path("runs").exists()


def test_handlers_are_put_back(folder, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopped(capsys, "fit", hook="on_train_batch_start")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

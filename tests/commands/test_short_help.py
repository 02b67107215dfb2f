"""The help of the training commands fits a screen or two, and what it names exists."""

import re
import sys
from contextlib import suppress

import pytest
from cli_dummies import error_of

from omnistream.cli import main
from omnistream.commands.train import OmniStreamCLI

VALUES = {"NAME": "auto", "KIND": "auto", "N": "1", "X": "0.1", "PATH": "x", "FOLDER": "x", "CONFIG": "quickstart"}
EXAMPLES = {"SOURCE": "ssl/image", "TASK.KEY VALUE": "ssl.head_warmup_steps 1", "TASK": "geometry"}


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["omnistream"])


def help_of(capsys, *arguments) -> str:
    """What a command prints before it ends well."""
    capsys.readouterr()
    with suppress(SystemExit):
        main(arguments)
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_it_fits_two_screens_of_80_columns(capsys, command):
    text = help_of(capsys, command, "--help")
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 80
    assert help_of(capsys, command, "-c", "quickstart", "-h") == text
    assert f"`omnistream {command} --help all`" in text
    assert ("--random" in text) == (command != "fit")


def test_all_is_lightnings(capsys):
    text = help_of(capsys, "fit", "--help", "all")
    assert "--trainer.gradient_clip_algorithm" in text
    assert len(text.splitlines()) > 300


def test_every_option_is_accepted(capsys, monkeypatch, tmp_path):
    """Of the packaged configurations that it is about."""
    parsed = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OmniStreamCLI, "instantiate_classes", lambda self: parsed.append(self.config))
    monkeypatch.setattr(OmniStreamCLI, "_run_subcommand", lambda self, name: None)
    monkeypatch.setattr(OmniStreamCLI, "_parse_ckpt_path", lambda self: None)
    text = help_of(capsys, "fit", "--help").partition("examples")[0]
    for example in EXAMPLES.items():
        text = text.replace(*example)
    options = {key: VALUES.get(value, value) for key, value in re.findall(r"^  (--\S+) (\S+)", text, re.MULTILINE)}
    assert len(options) >= 18
    options |= {"--trainer.precision": "32-true"}
    main(["fit", "-c", "real_samples", f"--data.root={options.pop('--data.root')}"])
    del options["--model.tasks.geometry"]  # null: tested elsewhere
    main(["fit", "-c", "quickstart", *(f"{key}={value}" for key, value in options.items())])
    assert [config.subcommand for config in parsed] == ["fit", "fit"]


def test_the_rest_of_the_command_is_not_run(capsys):
    assert error_of(capsys, "fit", "-c", "nope").startswith("no file and no packaged configuration")
    assert help_of(capsys, "fit", "-c", "nope", "--help").startswith("usage: omnistream fit")

import sys

import pytest

from omnistream.evaluation.environment import command


@pytest.mark.parametrize(
    ("program", "expected"),
    [("/env/bin/omnistream", "omnistream"), ("/site/omnistream/__main__.py", "omnistream"), ("train.py", "train.py")],
)
def test_the_command_can_be_typed_again(monkeypatch, program, expected):
    monkeypatch.setattr(sys, "argv", [program, "fit", "-c", "my config.yaml"])
    assert command() == f"{expected} fit -c 'my config.yaml'"

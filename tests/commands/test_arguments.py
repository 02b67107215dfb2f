"""The parser that the small subcommands share."""

import re

import pytest
import torch

from omnistream.backbone import create_model
from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep
from omnistream.cli import COMMANDS, Command, main
from omnistream.commands.arguments import CommandParser, place, usable_device
from omnistream.errors import UsageError


@pytest.fixture
def parser():
    parser = CommandParser("try", "What it does.", "examples:\n  omnistream try 1_0")
    parser.add_argument("path")
    parser.add_argument("--rope-layout")
    parser.add_argument("--max-frames", type=int)
    return parser


@pytest.mark.parametrize(("layout", "frames"), [("--rope_layout", "--max-frames"), ("--rope-layout", "--max_frames")])
def test_words_of_an_option_may_be_joined_by_either_sign(parser, layout, frames):
    found = parser.parse_args(["a_b-c", layout, "x_y", f"{frames}=3"])
    assert (found.path, found.rope_layout, found.max_frames) == ("a_b-c", "x_y", 3)


@pytest.mark.parametrize(
    "arguments", [["x", "--rope", "y"], ["x", "--max_frame_s", "3"], [], ["x", "--max-frames", "y"]]
)
def test_mistakes_name_the_help(parser, arguments):
    with pytest.raises(UsageError, match="see `omnistream try --help`"):
        parser.parse_args(arguments)


@pytest.mark.parametrize("command", ["stream", "export", "convert", "models", "configs"])
def test_the_help_has_one_spelling(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"usage: omnistream {command}" in text
    assert re.findall(r"--\w+_\w*", text) == []


def test_a_device_that_is_none():
    assert usable_device("cpu").type == "cpu"
    for name in ("tpu", "meta"):
        with pytest.raises(UsageError, match=f"device '{name}' cannot be used"):
            usable_device(name)


@pytest.mark.parametrize("kind", [PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError, OSError])
def test_bad_paths_are_one_line(kind, monkeypatch, capsys):
    def refuse(arguments):
        raise kind(1, "cannot be written", arguments[0])

    monkeypatch.setattr("omnistream.commands.arguments.refuse", refuse, raising=False)
    monkeypatch.setitem(COMMANDS, "refuse", Command("", "omnistream.commands.arguments", "refuse"))
    with pytest.raises(SystemExit, match="2"):
        main(["refuse", "out/put"])
    assert capsys.readouterr().err == "omnistream: error: [Errno 1] cannot be written: 'out/put'\n"


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("omnistream.commands.arguments.interrupt", interrupt, raising=False)
    monkeypatch.setitem(COMMANDS, "wait", Command("", "omnistream.commands.arguments", "interrupt"))
    with pytest.raises((SystemExit, KeyboardInterrupt), match="130"):  # the latter would end pytest
        main(["wait"])
    assert capsys.readouterr().err == "omnistream: interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        main(["--debug", "wait"])


def test_camera_frames_are_normalised_before_they_are_rounded():
    backbone = create_model("vit_nano").eval()
    frames, options = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8), SessionOptions(window=2)
    normalized = backbone.normalize(frames).bfloat16()
    place(backbone, torch.device("cpu"), "bf16")
    start = torch.tensor([True])
    given = StaticStep(backbone, options, StepInput(image_size=(16, 16), normalize=True))(frames, start)
    expected = StaticStep(backbone, options, StepInput(image_size=(16, 16)))(normalized, start)
    torch.testing.assert_close(given, expected, atol=0, rtol=0)

"""The parser that the small subcommands share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from omnistream.backbone import create_model
from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep
from omnistream.cli import COMMANDS, Command, main
from omnistream.commands.arguments import CommandParser, place, refuse_occupied, usable_device
from omnistream.errors import UsageError


@dataclass(frozen=True)
class Input:
    """What is read."""

    path: str | Path
    """File, folder
    or hub id."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How it is done."""

    out: Path
    """Folder to write."""
    rope_layout: Literal["spatial", "official"] | None = None
    """Positions."""
    max_frames: int | None = 7
    """Stop after this many; None for all."""
    fps: float | None = None
    """Frames per second."""
    names: tuple[str, ...] = ()
    """Names."""
    heads: tuple[Literal["depth", "pose"], ...] | None = None
    """Heads."""
    size: tuple[int, int] = (8, 8)
    """Height and width."""
    layers: Sequence[int] = ()
    """Blocks."""
    depth: Literal["first"] | tuple[float, float] = "first"
    """Range."""
    compiled: bool = False
    """Compile."""
    hidden: int = 3

    def __post_init__(self):
        if self.fps == 0:
            raise ValueError("fps must not be 0")


@pytest.fixture
def parser():
    parser = CommandParser("try", "What it does.", "examples:\n  omnistream try 1_0")
    parser.add_options(Input, positional=True)
    values = {"max_frames": {"all": "null"}, "heads": {"none": "[]"}}
    parser.add_options(Options, skip=("hidden",), aliases={"compile": "compiled"}, values=values)
    return parser


def parsed(parser, *words):
    return parser.parse(["in", "--out", "out", *words])[Options]


def test_the_options_are_the_fields(parser):
    found = parser.parse(["--out", "a_b-c", "x_y"])
    assert found[Input] == Input("x_y")
    assert found[Options] == Options(out=Path("a_b-c"))
    assert found.given == {"out"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rope_layout", "official", "--max-frames=3"], {"rope_layout": "official", "max_frames": 3}),
        (["--rope-layout=official", "--max_frames", "3"], {"rope_layout": "official", "max_frames": 3}),
        (["--max-frames", "all"], {"max_frames": None}),
        (["--names", "last, cls,11"], {"names": ("last", "cls", "11")}),
        (["--names", "1"], {"names": ("1",)}),
        (["--names", ""], {}),
        (["--heads", "none"], {"heads": ()}),
        (["--heads", "pose,depth"], {"heads": ("pose", "depth")}),
        (["--size", "480", "640"], {"size": (480, 640)}),
        (["--size", "480,640", "--compile"], {"size": (480, 640), "compiled": True}),
        (["--layers", "1", "2", "--compiled=false"], {"layers": [1, 2]}),
        (["--layers", "1,2"], {"layers": [1, 2]}),
        (["--depth", "1,2.5"], {"depth": (1.0, 2.5)}),
        (["--depth=-1,2"], {"depth": (-1.0, 2.0)}),
        (["--depth", "first"], {"depth": "first"}),
    ],
)
def test_values(parser, words, expected):
    assert parsed(parser, *words) == Options(out=Path("out"), **expected)


def test_a_flag_and_a_tuple_of_words_take_no_further_word(parser):
    found = parser.parse(["--compile", "in", "--out", "out"])
    assert (found[Input].path, found[Options].compiled) == ("in", True)
    assert parser.parse(["--out", "out", "--names", "cls", "0"])[Input].path == "0"
    assert parser.parse(["--out", "out", "--size", "8", "16", "0"])[Input].path == "0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rope-layot", "y"], "there is no option --rope-layot (did you mean '--rope-layout'?)"),
        (["--max_frame_s", "3"], "there is no option --max_frame_s (did you mean '--max-frames'?)"),
        (["--hidden", "3"], "there is no option --hidden"),
        (["more"], "unrecognized arguments: more"),
        (["--max-frames", "y"], "--max-frames: expected a whole number or all, got 'y'"),
        (["--fps", "nan"], "--fps: expected a number, got 'nan'"),
        (["--fps"], "--fps needs a value"),
        (["--fps", "--compile"], "--fps needs a value"),
        (["--rope-layout", "cube"], "--rope-layout: expected spatial or official, got 'cube'"),
        (["--heads", "normals"], "--heads: expected some of depth, pose, separated by commas or none, got 'normals'"),
        (["--size", "8"], "--size: expected 2 whole numbers, separated by commas, got '8'"),
        (["--depth", "near"], "--depth: expected first or 2 numbers, separated by commas, got 'near'"),
        (["--compile=maybe"], "--compile: expected true or false, got 'maybe'"),
    ],
)
def test_mistakes_are_one_line_that_names_the_help(parser, words, message):
    with pytest.raises(UsageError) as caught:
        parsed(parser, *words)
    assert str(caught.value) == f"{message}; see `omnistream try --help`"


def test_missing_options_are_named_as_they_are_written(parser):
    with pytest.raises(UsageError, match=r"are required: PATH, --out; see"):
        parser.parse([])


def test_a_value_that_the_dataclass_refuses(parser):
    with pytest.raises(ValueError, match=r"^fps must not be 0$"):
        parsed(parser, "--fps", "0")


def test_paths_are_expanded(parser, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLIPS", "clips")
    found = parser.parse(["~/$CLIPS/a.mp4", "--out", "${CLIPS}/out"])
    assert (found[Input].path, found[Options].out) == (str(tmp_path / "clips/a.mp4"), Path("clips/out"))
    for name in ("owner/name", "./a", "rtsp://host/a", "a//b"):  # a hub id or an address stays as it is
        assert parser.parse([name, "--out", "x"])[Input].path == name
    with pytest.raises(ValueError, match="ABSENT is not set"):
        parser.parse(["$ABSENT/a", "--out", "x"])


def test_help_is_the_docstrings(parser):
    text = parser.format_help()
    assert "usage: omnistream try [-h] --out OUT" in text
    assert re.search(r"What is read:\n  PATH +File, folder or hub id\n", text)
    assert re.search(r"--max-frames MAX-FRAMES\n +Stop after this many; `all` for all \(default: 7\)", text)
    assert re.search(r"--rope-layout \{spatial,official\}\n +Positions\n", text)
    assert re.search(r"--compile +Compile\n", text)
    assert "--size N N" in text
    assert "--layers N [N ...]" in text
    assert "hidden" not in text


def test_occupied_folders(tmp_path):
    refuse_occupied(tmp_path, False, "--out")
    refuse_occupied(tmp_path / "new", False, "--out")
    (tmp_path / "file").touch()
    refuse_occupied(tmp_path, True, "--out")
    with pytest.raises(UsageError, match="is not empty; choose another folder or add --overwrite"):
        refuse_occupied(tmp_path, False, "--out")
    with pytest.raises(UsageError, match="is a file; --out is a folder"):
        refuse_occupied(tmp_path / "file", True, "--out")


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
    place(backbone, torch.device("cpu"), "bfloat16")
    start = torch.tensor([True])
    given = StaticStep(backbone, options, StepInput(image_size=(16, 16), normalize=True))(frames, start)
    expected = StaticStep(backbone, options, StepInput(image_size=(16, 16)))(normalized, start)
    torch.testing.assert_close(given, expected, atol=0, rtol=0)

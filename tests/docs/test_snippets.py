"""The code of the documentation runs, and its commands are understood by the parsers of the commands.

Blocks of a page run in order, Python in one namespace, in a folder that holds what the pages speak of (see `conftest`).
Of the shell, calls of `omnistream` count: training commands are parsed, others run where their input exists.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jsonargparse
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from snippets import PAGES, ROOT, Block, blocks, commands

from omnistream.cli import COMMANDS, main

WITH_CODE = [page for page in PAGES if any(block.language in ("python", "bash") for block in blocks(page))]
TRAINING = {"fit", "validate", "test", "predict"}
TRAININGS = {
    shlex.join(arguments): block
    for page in PAGES
    for block in blocks(page)
    if block.language == "bash" and block.marker is None
    for arguments in commands(block)
    if arguments[0] in TRAINING
}
"""Every training command of the pages once, and where it stands; LightningCLI takes seconds to parse one."""
MOST_SKIPPED = 3
"""Blocks that may be skipped; raise it only for what needs a network or a device."""
SHELLS = ("bash", "zsh", "fish")


class Parsed(BaseException):
    """Raised in place of what a command does once its arguments are read."""


def parse_only(arguments: list[str]) -> None:
    """Run a command up to the point where its arguments are accepted."""

    def stop(*_: object) -> None:
        raise Parsed

    def parse_then_stop(parse):
        def wrapped(*args, **kwargs):
            parse(*args, **kwargs)
            raise Parsed

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        if arguments[0] in TRAINING:
            patch.setattr(LightningCLI, "instantiate_classes", stop)
        else:
            for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
                patch.setattr(parser, "parse_args", parse_then_stop(parser.parse_args))
        with pytest.raises(Parsed):
            main(arguments)


def call(block: Block, arguments: list[str]) -> None:
    """Run or parse one call of `omnistream`; a refusal fails with the line of the page."""
    source = next((argument for argument in arguments[1:] if not argument.startswith("-")), None)
    try:
        runs = "--help" in arguments or arguments[0] not in TRAINING
        if runs and (source is None or Path(source).exists() or source in SHELLS):
            main(arguments)
        else:
            parse_only(arguments)
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{block.page.name}:{block.line}: omnistream {' '.join(arguments)} is refused")


def run(page: Path) -> dict:
    """Run the blocks of a page that have no marker; its Python namespace at the end."""
    names: dict = {"__name__": page.stem}
    for block in blocks(page):
        if block.marker is not None:
            continue
        if block.language == "python":
            padding = "\n" * (block.line - 1)  # tracebacks then show the line of the page
            exec(compile(padding + block.code, str(block.page), "exec"), names)
        elif block.language == "bash":
            for arguments in commands(block):
                if arguments[0] not in TRAINING:
                    call(block, arguments)
    return names


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page.stem != "README"], ids=lambda page: page.stem)
def test_code_runs(page, workplace):
    run(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.marker == "slow" for block in blocks(page))])
def test_slow_python_runs(page, workplace):
    """In a process of its own: torch.compile cannot trace through the shape checks that the tests add."""
    code = "".join(block.code for block in blocks(page) if block.language == "python" and block.marker != "skip")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=workplace, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("command", TRAININGS)
def test_training_command_is_understood(command, workplace):
    call(TRAININGS[command], shlex.split(command))


def test_readme_runs_and_its_comments_are_true(workplace, capsys):
    names = run(ROOT / "README.md")
    assert "True\n" in capsys.readouterr().out
    assert names["out"].cls.shape == (1, 8, 128)
    assert names["out"].last.shape == names["out"].patches[2].shape == (1, 8, 8, 8, 128)
    torch.testing.assert_close(names["now"].cls[:, 0], names["out"].cls[:, 7], atol=1e-4, rtol=0)
    assert {path.name for path in Path("my_backbone").iterdir()} == {"model.safetensors", "config.json"}
    saved, loaded = names["backbone"].state_dict(), names["again"].state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)
    assert names["fork"].frame_indices.tolist() == [6]
    written = {path.name for path in Path("seen").iterdir()}
    assert written >= {"features_pca.mp4", "depth.mp4", "poses.txt", "points.ply", "summary.json"}


def test_few_blocks_are_skipped():
    skipped = [block for page in PAGES for block in blocks(page) if block.marker == "skip"]
    assert len(skipped) <= MOST_SKIPPED, [f"{block.page.name}:{block.line}" for block in skipped]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_a_language(page):
    """A block without one, or an indented one, would escape the tests above."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if line.startswith("```")]
    assert all(fence != "```" for fence in fences[::2])
    assert all(fence == "```" for fence in fences[1::2])
    assert not [line for line in lines if line.startswith("    omnistream ")]


def test_every_command_is_shown_somewhere():
    shell = [block for page in PAGES for block in blocks(page) if block.language == "bash"]
    shown = {arguments[0] for block in shell for arguments in commands(block)}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize(
    "arguments",
    [["stream", "VIDEO", "--random", "--out", "x", "--widow", "3"], ["fit", "-c", "quickstart", "--model.task", "x"]],
)
def test_a_wrong_command_is_noticed(arguments, workplace):
    with pytest.raises(pytest.fail.Exception, match=r"page.md:7: omnistream"):
        call(Block(Path("page.md"), 7, "bash", "", None), arguments)

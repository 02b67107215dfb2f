"""The `omnistream` command: finds the subcommand, imports only that one, and turns a user's mistake into one line.

A subcommand is one row of `COMMANDS`: its name, its help line and where its function is. The function gets the
arguments that follow the name, prints its result, and raises `UsageError`, `ValueError` or `OSError` for what the user
can fix.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnistream.errors import Stopped, UsageError, did_you_mean, one_line
from omnistream.version import __version__


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    help: str
    """One line for `omnistream --help`."""
    module: str
    """Module that holds its function, imported only when the subcommand is called."""
    function: str
    """Name of the function; it takes the list of arguments after the subcommand."""
    pass_name: bool = False
    """Whether the function takes the subcommand's name first, for functions that serve several."""

    def __call__(self, name: str, arguments: list[str]) -> None:
        """Import the function and call it."""
        function: Callable[..., None] = getattr(importlib.import_module(self.module), self.function)
        function(*([name] if self.pass_name else []), arguments)


def _lightning(text: str) -> Command:
    return Command(help=text, module="omnistream.commands.train", function="run", pass_name=True)


COMMANDS = {
    "fit": _lightning("train: all objectives together, or one alone"),
    "validate": _lightning("losses and metrics on the validation sets"),
    "test": _lightning("losses and metrics on the test sets"),
    "predict": _lightning("write the features of every clip of the validation sets"),
    "export": Command("write the streaming step as .pt2 or ONNX", "omnistream.commands.export", "run"),
    "stream": Command(
        "send a video, camera or folder through a backbone, frame by frame", "omnistream.commands.stream", "run"
    ),
    "report": Command("lay results of evaluations beside published numbers", "omnistream.commands.report", "run"),
    "configs": Command("list the packaged configurations", "omnistream.commands.catalogue", "configs"),
    "models": Command("list the backbone variants and public weights", "omnistream.commands.catalogue", "models"),
    "convert": Command(
        "convert weights from Meta, timm, Hugging Face or the release", "omnistream.commands.convert", "run"
    ),
    "completion": Command(
        "print what makes a shell complete commands and options", "omnistream.commands.completion", "run"
    ),
}

_HELP = """\
usage: omnistream COMMAND [-c CONFIG] [--key value ...]

{commands}

  --debug    show the traceback of an error
  --version  print the version

`omnistream COMMAND --help` lists the options of a command. Start with: omnistream fit -c quickstart
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `omnistream` command.

    Args:
        arguments: Without the program's name; default those of the process.

    Raises:
        SystemExit: With code 2 after a user's mistake or a failure of the system such as a full disk, and as shells
            have it with 130 after Ctrl-C and 143 after SIGTERM; a line on stderr says why. With `--debug` the exception
            itself is raised.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    # Read when PyTorch is first imported. GNU OpenMP's idle threads otherwise spin for milliseconds, and beside any
    # other process on the same cores a step takes many times as long. This is enough to bridge the gap between kernels.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        _dispatch(given)
    except Exception as error:
        if debug or not _is_for_the_user(error):
            raise
        print(f"omnistream: error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from error
    except (KeyboardInterrupt, Stopped) as stop:
        if debug:
            raise
        stopped = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        print(f"omnistream: {stopped}", file=sys.stderr)
        if stopped.resume:
            print(f"continue with: {stopped.resume}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None


def _is_for_the_user(error: Exception) -> bool:
    """Whether the message alone suffices: bad values, bad paths, full disks, and exceptions of this library."""
    return isinstance(error, (ValueError, OSError)) or type(error).__module__.split(".")[0] == "omnistream"


def _dispatch(arguments: list[str]) -> None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        commands = "\n".join(f"  {name:<10} {command.help}" for name, command in COMMANDS.items())
        print(_HELP.format(commands=commands), end="")
    elif name == "--version":
        print(f"omnistream {__version__}")
    elif name in COMMANDS:
        COMMANDS[name](name, rest)
    else:
        raise UsageError(f"no command {name!r}{did_you_mean(name, COMMANDS)}; commands: {', '.join(COMMANDS)}")

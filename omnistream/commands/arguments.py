"""What the subcommands that are not Lightning's share: the parser, and what a device's name means."""

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from omnistream.errors import UsageError, one_line

if TYPE_CHECKING:
    import torch

    from omnistream.backbone import OmniStream


DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
"""What a dtype may be called on the command line, and its name in PyTorch."""
FLOAT_NAMES = ("fp32", "bf16", "fp16")


class CommandParser(argparse.ArgumentParser):
    """Options are never abbreviated, a mistake is a `UsageError`, and `--a_b` is taken for `--a-b`, as all are named.

    Args:
        name: Of the subcommand.
        description: Above the options in the help, as it is.
        epilog: Below them.
    """

    def __init__(self, name: str, description: str, epilog: str) -> None:
        self.name = name
        super().__init__(
            prog=f"omnistream {name}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """See `argparse.ArgumentParser.parse_args`."""
        return super().parse_args([self._spelled(argument) for argument in args], namespace)

    def _spelled(self, argument: str) -> str:
        option, equals, value = argument.partition("=")
        dashed = option.replace("_", "-")
        return dashed + equals + value if dashed in self._option_string_actions else argument

    def error(self, message: str) -> NoReturn:
        """Raise the message instead of leaving the process.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{one_line(message)}; see `omnistream {self.name} --help`")


def above_zero(text: str) -> float:
    """A number of an option that must be positive and finite.

    Raises:
        argparse.ArgumentTypeError: If it is not.
    """
    return _between(text, 0, math.inf, "must be a positive number")


def frame_rate(text: str) -> float:
    """A number of frames per second, from one in a quarter of an hour to a thousand.

    Raises:
        argparse.ArgumentTypeError: If it is not.
    """
    return _between(text, 0.001, 1000, "must be a number of frames per second from 0.001 to 1000")


def _between(text: str, low: float, high: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number > 0 and low <= number <= high and number < math.inf:
        return number
    raise argparse.ArgumentTypeError(f"{expected}, got {text!r}")


def usable_device(name: str) -> "torch.device":
    """The device of this name.

    Raises:
        UsageError: If there is none, or nothing can be put on it and read back.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` takes anything, and gives nothing back
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used ({one_line(error, 120)})") from error
    return device


def place(backbone: "OmniStream", device: "torch.device", dtype: str) -> None:
    """Move a backbone; the statistics that normalise frames stay in float32.

    Args:
        backbone: Changed in place.
        device: Where it goes.
        dtype: Of the weights, as the command line calls it.
    """
    import torch

    mean, std = backbone.mean.float(), backbone.std.float()
    backbone.to(device, getattr(torch, DTYPE_NAMES[dtype]))
    backbone.mean, backbone.std = mean.to(device), std.to(device)

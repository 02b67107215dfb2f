"""The contract between the runner and whatever writes files."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from omnistream.backbone import BackboneOutput
from omnistream.streaming.frames import Frame


@dataclass(frozen=True)
class Step:
    """What one step of the session made of S frames."""

    frames: list[Frame]
    """The frames as they came."""
    images: UInt8[Tensor, "S 3 H W"]
    """The frames as they were encoded, on the CPU."""
    output: BackboneOutput
    """Features and results of heads, B=1."""


@runtime_checkable
class Writer(Protocol):
    """Writes one kind of file. Memory must not grow with the number of steps.

    A file is opened by the first step and complete after `close`, also when the stream was cut short.
    """

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        ...

    def close(self) -> None:
        """Complete the file; without any step there is none."""
        ...

    def summary(self) -> dict[str, object]:
        """What summary.json says about it, by file name."""
        ...

"""The interface between the runner and the writers."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from omnistream.backbone import BackboneOutput
from omnistream.streaming.frames import Frame


@dataclass(frozen=True)
class Step:
    """S frames and the result of one step of the session on them."""

    frames: list[Frame]
    """The frames of the source."""
    images: UInt8[Tensor, "S 3 H W"]
    """The frames at the encoded size, on the CPU."""
    output: BackboneOutput
    """Features and outputs of the heads, B=1."""


@runtime_checkable
class Writer(Protocol):
    """Writes one kind of file. Memory must not grow with the number of steps.

    A file is opened by the first step and complete after `close`, even if the stream ends early.
    """

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        ...

    def close(self) -> None:
        """Complete the file, if any step was written."""
        ...

    def summary(self) -> dict[str, object]:
        """Entries of summary.json, by file name."""
        ...

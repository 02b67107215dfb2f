"""What the reader of a video must know about each packet."""

from typing import NamedTuple, Protocol, runtime_checkable


class AccessUnit(NamedTuple):
    """What one packet holds."""

    starts: bool
    """Decoding can begin here: this frame, and all that are shown after it, need no earlier packet."""
    shows: int
    """Frames that begin here and are shown; 0 for second fields and hidden frames."""
    order: int | None = None
    """Rises in display order; None where the stream does not say."""


@runtime_checkable
class UnitReader(Protocol):
    """Reads the packets of one stream in file order."""

    reorders: bool
    """Frames may be shown in another order than their packets come."""

    has_state: bool
    """Packets are read in the light of those before."""
    notes: set[str]
    """What was met that other readers of the stream may not heed: fields, or an orientation in the stream itself."""

    def __call__(self, data: bytes, is_key: bool) -> AccessUnit:
        """The facts of the next packet.

        Args:
            data: The packet.
            is_key: What the container says.

        Raises:
            IndexError, KeyError: If the headers make no sense to the reader; only decoding tells what is shown.
        """
        ...

    def finish(self) -> bool:
        """Whether the facts still hold at the end of the stream."""
        ...

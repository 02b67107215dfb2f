"""What a video reader needs to know about each packet."""

from typing import NamedTuple, Protocol, runtime_checkable


class AccessUnit(NamedTuple):
    """Contents of one packet."""

    starts: bool
    """Whether decoding can begin here: this frame and all frames shown after it need no earlier packet."""
    shows: int
    """Number of shown frames that begin here; 0 for second fields and hidden frames."""
    order: int | None = None
    """Increases in display order; None if the stream does not say."""


@runtime_checkable
class UnitReader(Protocol):
    """Reads the packets of one stream in file order."""

    reorders: bool
    """Whether the display order of frames may differ from the order of their packets."""

    has_state: bool
    """Whether reading a packet depends on earlier packets."""
    notes: set[str]
    """Features of the stream that other readers may ignore: fields, or an orientation in the stream itself."""

    def __call__(self, data: bytes, is_key: bool) -> AccessUnit:
        """Contents of the next packet.

        Args:
            data: The packet.
            is_key: The container's key flag.

        Raises:
            IndexError, KeyError: If the headers cannot be interpreted, so that the stream has to be decoded.
        """
        ...

    def finish(self) -> bool:
        """Whether the frame count is reliable at the end of the stream."""
        ...

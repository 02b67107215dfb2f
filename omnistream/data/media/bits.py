"""Parsing of compressed streams: bits, Exp-Golomb codes and NAL units."""

from collections.abc import Iterator

ORIENTATION = 47
"""Type of the message that gives the display orientation, in H.264 and HEVC."""


class BitReader:
    """Reads a header bit by bit, without emulation prevention bytes (00 00 03).

    Raises:
        IndexError: If it is read past its end.
    """

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as an unsigned number."""
        self._left -= count
        if self._left < 0:
            raise IndexError("the header is cut off")
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """The next unsigned Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """The next signed Exp-Golomb code."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def start_codes(data: bytes) -> Iterator[int]:
    """Offsets of the bytes after each start code (00 00 01)."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        yield at + 3
        at = data.find(b"\0\0\1", at + 3)


def nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units of an H.264 or HEVC packet.

    Args:
        data: The packet.
        length_size: Bytes of the length before each unit; 0 if start codes separate them (Annex B).
    """
    if length_size == 0:
        starts = list(start_codes(data))
        ends = [start - 3 for start in starts[1:]] + [len(data)]
        yield from (data[start:end] for start, end in zip(starts, ends, strict=True) if end > start)
        return
    at = 0
    while at + length_size < len(data):
        length = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        if length:
            yield data[at : at + length]
        at += length


def sei_messages(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of the messages in an SEI unit of H.264 or HEVC, which is given without its header.

    Raises:
        IndexError: If the unit is cut off.
    """
    data, at = payload.replace(b"\0\0\3", b"\0\0"), 0
    while at + 2 < len(data):
        values = []
        for _ in range(2):
            value = 0
            while data[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + data[at])
            at += 1
        yield values[0], data[at : at + values[1]]
        at += values[1]

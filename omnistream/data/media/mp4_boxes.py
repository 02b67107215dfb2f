"""Why an MP4, MOV or 3GP file does not open: whether its index is there.

Source: ISO/IEC 14496-12, 4.2 (boxes); QuickTime File Format, "Atoms".
"""

from collections.abc import Iterator
from pathlib import Path

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"}
"""Kinds with which such a file begins."""


def missing_index(path: str | Path) -> str | None:
    """What a file of this family lacks to be opened; None for other files, and for those whose index is complete."""
    path = Path(path)
    try:
        if not path.is_file():
            return None
        boxes = list(_boxes(path))
    except (OSError, ValueError):  # an address that is no path
        return None
    if not boxes or boxes[0][0] not in _FIRST_BOXES:
        return None
    found = [is_whole for kind, is_whole in boxes if kind == b"moov"]
    if any(found):
        return None
    return f"it is cut short, or its recorder did not finish it: its index (moov) is {'cut' if found else 'missing'}"


def _boxes(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Kind of every outermost box, and whether it ends within the file."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 0:  # to the end of the file
                length = size - at
            elif length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return
            at += length
            yield header[4:8], at <= size

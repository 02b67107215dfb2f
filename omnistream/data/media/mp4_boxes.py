"""Whether an MP4, MOV or 3GP file that does not open lacks its index.

Source: ISO/IEC 14496-12, 4.2 (boxes); QuickTime File Format, "Atoms".
"""

from collections.abc import Iterator
from pathlib import Path

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"}
"""Types of the first box of such a file."""


def missing_index(path: str | Path) -> str | None:
    """Message that the index of such a file is missing; None for other files, and if the index is complete."""
    path = Path(path)
    try:
        if not path.is_file():
            return None
        boxes = list(_boxes(path))
    except (OSError, ValueError):  # a network address
        return None
    if not boxes or boxes[0][0] not in _FIRST_BOXES:
        return None
    found = [is_whole for kind, is_whole in boxes if kind == b"moov"]
    if any(found):
        return None
    return f"truncated, or its recording was not finished: its index (moov) is {'incomplete' if found else 'missing'}"


def _boxes(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Type of every top-level box, and whether it ends within the file."""
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

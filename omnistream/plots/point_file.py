"""Writing a coloured point cloud as a binary PLY file of bounded size."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z")]
    + [(name, "u1") for name in ("red", "green", "blue")]
    + [("confidence", "<f4")]
)
_PLY_TYPES = {"f4": "float", "u1": "uchar"}


def ply_header(num_points: int) -> bytes:
    """Header of a binary point cloud, padded to the same length for every number of points."""
    count = str(num_points)
    lines = ["ply", "format binary_little_endian 1.0", f"comment written by omnistream {'-' * (12 - len(count))}"]
    lines.append(f"element vertex {count}")
    for name in VERTEX.names or ():
        lines.append(f"property {_PLY_TYPES[VERTEX[name].str[1:]]} {name}")
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii")


def point_records(
    xyz: Float[np.ndarray, "N 3"], colors: UInt8[np.ndarray, "N 3"], confidence: Float[np.ndarray, " N"]
) -> np.ndarray:
    """Points as records of a file.

    Args:
        xyz: Coordinates.
        colors: Red, green and blue.
        confidence: Larger is more certain.
    """
    records = np.empty(len(xyz), VERTEX)
    for axis, name in enumerate("xyz"):
        records[name] = xyz[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        records[name] = colors[:, channel]
    records["confidence"] = confidence
    return records


class PointFile:
    """A PLY file that never holds more than `max_points`: when there are more, every second point is dropped.

    Args:
        path: File to write.
        max_points: Maximum number of points.
    """

    def __init__(self, path: Path, max_points: int = 2_000_000) -> None:
        self.max_points = max_points
        self.num_points, self.every = 0, 1
        self._file = path.open("w+b")
        self._file.write(ply_header(0))

    def add(self, records: np.ndarray, phase: int = 0) -> None:
        """Append every `every`-th of some points, so that all parts of a stream are represented equally.

        Args:
            records: From `point_records`.
            phase: Which of them is the first, such as the index of the frame: taking the same ones of every frame would
                leave stripes.
        """
        chosen = records[phase % self.every :: self.every]
        self._file.write(chosen.tobytes())
        self.num_points += len(chosen)
        while self.num_points > self.max_points:
            self._thin()

    def _thin(self, block: int = 1 << 16) -> None:
        """Keep every second point, rewriting the file block by block."""
        start, size, kept = len(ply_header(0)), VERTEX.itemsize, 0
        for first in range(0, self.num_points, 2 * block):
            self._file.seek(start + first * size)
            count = min(2 * block, self.num_points - first)
            records = np.frombuffer(self._file.read(count * size), VERTEX)[::2]
            self._file.seek(start + kept * size)
            self._file.write(records.tobytes())
            kept += len(records)
        self._file.truncate(start + kept * size)
        self._file.seek(0, 2)
        self.num_points, self.every = kept, 2 * self.every

    def close(self) -> None:
        """Fill in the number of points in the header and close the file."""
        self._file.seek(0)
        self._file.write(ply_header(self.num_points))
        self._file.close()

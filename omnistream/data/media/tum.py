"""Text files of the TUM RGB-D benchmark: lists of images, and trajectories."""

import logging
from functools import lru_cache
from math import isfinite, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from omnistream.cameras import make_pose, matrix_from_quaternion
from omnistream.data.media.errors import MediaReadError

logger = logging.getLogger(__name__)

_SHORTEST = 1e-6
"""Length below which a quaternion has no direction."""


class TimedFiles(NamedTuple):
    """Files with the time of each, in order of time."""

    stamps: Float64[np.ndarray, " N"]
    """Seconds, all different."""
    files: list[str]
    """As the list names them, mostly relative to its folder."""


class Trajectory(NamedTuple):
    """Poses with the time of each, in order of time."""

    stamps: Float64[np.ndarray, " N"]
    """Seconds, all different."""
    values: Float64[np.ndarray, "N 7"]
    """Position in metres, and quaternion (x, y, z, w) of any length, of the camera in the world."""

    def pose(self, row: int) -> Float64[np.ndarray, "4 4"]:
        """Camera-to-world of a row, with a rotation that is orthonormal to float64."""
        values = torch.tensor(self.values[row])
        pose: np.ndarray = make_pose(matrix_from_quaternion(values[3:]), values[:3]).numpy()
        return pose


class _Line(NamedTuple):
    number: int
    stamp: float
    fields: list[str]
    """After the timestamp."""


def read_file_list(path: Path) -> TimedFiles:
    """Read a list such as rgb.txt: a timestamp and a path per line.

    Blanks, tabs and commas separate; lines that begin with # are comments; lines may be in any order. Lines without a
    path are skipped, and of several lines with one timestamp the last counts, both as in the authors' tools and with a
    warning.

    Args:
        path: The list.

    Raises:
        MediaReadError: If the file cannot be read, a timestamp is not a finite number, or there is none.
    """
    lines = _timed_lines(path)
    if empty := [line.number for line in lines if not line.fields]:
        logger.warning("%s: %d lines without a path are skipped, such as line %d", path, len(empty), min(empty))
    lines = [line for line in lines if line.fields]
    if not lines:
        raise MediaReadError(path, "names no file")
    return TimedFiles(np.array([line.stamp for line in lines]), [line.fields[0] for line in lines])


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory such as groundtruth.txt: `timestamp tx ty tz qx qy qz qw` per line.

    Separators, comments, order and repeated timestamps are those of `read_file_list`. Arrays are read-only, as they are
    kept in memory until the file changes.

    Args:
        path: The trajectory.

    Raises:
        MediaReadError: If the file cannot be read or holds no pose, or a line has another number of fields, a value
            that is not finite, or a quaternion of length zero; names the line.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise MediaReadError(path, f"cannot be read ({error.strerror})") from error
    return _read_trajectory(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=64)
def _read_trajectory(path: Path, state: tuple[int, int]) -> Trajectory:
    lines = _timed_lines(path)
    if not lines:
        raise MediaReadError(path, "holds no pose")
    if wrong := [line for line in lines if len(line.fields) != 7]:
        number, found = wrong[0].number, 1 + len(wrong[0].fields)
        raise MediaReadError(path, f"line {number}: expected timestamp tx ty tz qx qy qz qw, got {found} fields")
    values = _table([line.fields for line in lines])
    if len(rows := np.flatnonzero(~np.isfinite(values).all(1))):
        line = lines[rows[0]]
        text = line.fields[int(np.argmin(np.isfinite(values[rows[0]])))]
        raise MediaReadError(path, f"line {line.number}: {text!r} is not a finite number")
    if len(rows := np.flatnonzero(np.linalg.norm(values[:, 3:], axis=1) < _SHORTEST)):
        line = lines[rows[0]]
        raise MediaReadError(path, f"line {line.number}: the quaternion {' '.join(line.fields[3:])} has no direction")
    stamps = np.array([line.stamp for line in lines])
    stamps.flags.writeable = values.flags.writeable = False
    return Trajectory(stamps, values)


def _timed_lines(path: Path) -> list[_Line]:
    """Lines that are no comment, in order of time, each timestamp once."""
    lines = []
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        fields = text.replace(",", " ").split()
        if fields and not fields[0].startswith("#"):
            stamp = _number(fields[0])
            if not isfinite(stamp):
                raise MediaReadError(path, f"line {number}: the timestamp {fields[0]!r} is not a finite number")
            lines.append(_Line(number, stamp, fields[1:]))
    last = {line.stamp: line for line in lines}
    if repeated := [line for line in lines if last[line.stamp] is not line]:
        logger.warning(
            "%s: %d lines are skipped because a later line has the same timestamp, such as line %d (line %d)",
            path, len(repeated), repeated[0].number, last[repeated[0].stamp].number,
        )  # fmt: skip
    return [last[stamp] for stamp in sorted(last)]


def _table(rows: list[list[str]]) -> Float64[np.ndarray, "N 7"]:
    try:
        return np.array(rows, np.float64)  # in one go: trajectories have tens of thousands of lines
    except ValueError:
        return np.array([[_number(text) for text in row] for row in rows])


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return nan


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MediaReadError(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise MediaReadError(path, "is not a text file") from None

"""Indexes of scene data sets on disk: arrays without pickle, replaced whole, and dropped when the tree changes."""

import hashlib
import logging
import re
import zipfile
from collections.abc import Iterable, Sequence
from fnmatch import translate
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import numpy as np

from omnistream.data.folders import IMAGE_SUFFIXES, walk_folders
from omnistream.data.path_table import StringTable
from omnistream.paths import apply_umask

logger = logging.getLogger(__name__)


class SceneSequence(NamedTuple):
    """One sequence of frames; nothing is decoded yet.

    Attributes:
        name: Unique in its data set; mostly the folder relative to the root.
        frames: A string per usable frame, in order, by which the reader finds it again; kept compactly in an index.
        is_video: The frames are in order of time; False for a collection of views.
        is_metric: Depth and translation are in metres.
    """

    name: str
    frames: Sequence[str]
    is_video: bool = True
    is_metric: bool = True

    @property
    def num_frames(self) -> int:
        """Number of usable frames."""
        return len(self.frames)


class SceneIndex(NamedTuple):
    """What was found below the root of a scene data set.

    Attributes:
        sequences: The sequences that can be read, sorted by name.
        broken: Path and reason of every sequence that cannot.
    """

    sequences: list[SceneSequence]
    broken: list[tuple[str, str]]


def tree_signature(root: Path, described_by: Iterable[str], *, images: bool = False) -> str:
    """A hash that changes when something below a folder changes that an index may depend on.

    It covers the names of all files, the times of all folders, and size and times of the few files that describe a
    sequence as a whole; files of single frames, of which there may be millions, are listed and not looked at. Not
    noticed is therefore a file of a single frame that is rewritten in place; one that is replaced by renaming is.

    Args:
        root: The folder; links are followed.
        described_by: Names (or patterns) of the files that describe sequences.
        images: Also look at images among them.
    """
    describes = re.compile("|".join(map(translate, described_by)) or "(?!)")
    parts: list[str] = []
    for folder, files in walk_folders(root):
        digest = hashlib.sha256(folder.encode("utf-8", "surrogateescape") + _state(root / folder))
        for name in files:
            digest.update(b"\0" + name.encode("utf-8", "surrogateescape"))
            if describes.match(name) and (images or Path(name).suffix.lower() not in IMAGE_SUFFIXES):
                digest.update(_state(root / folder / name))
        parts.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def _state(path: Path) -> bytes:
    try:
        status = path.stat()
    except FileNotFoundError:  # removed since it was listed
        return b""
    return f"\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()


def save_index(path: Path, signature: str, index: SceneIndex) -> None:
    """Write an index; readers see the old file or the new one, however many processes write.

    A folder that cannot be written to is no error: the next run searches again.
    """
    frames = [StringTable.of(sequence.frames) for sequence in index.sequences]
    tables = {
        "names": StringTable.of(sequence.name for sequence in index.sequences),
        "frames": StringTable.join([(table.data.tobytes(), table.lengths) for table in frames]),
        "broken": StringTable.of(text for entry in index.broken for text in entry),
    }
    arrays = {f"{name}_{part}": getattr(table, part) for name, table in tables.items() for part in ("data", "lengths")}
    arrays["num_frames"] = np.array([len(table) for table in frames], np.int64)
    arrays["is_video"] = np.array([sequence.is_video for sequence in index.sequences], bool)
    arrays["is_metric"] = np.array([sequence.is_metric for sequence in index.sequences], bool)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as draft:
            np.savez(draft, signature=np.array(signature), **arrays)  # type: ignore[arg-type]
        apply_umask(Path(draft.name))
        Path(draft.name).replace(path)
    except OSError as error:
        logger.info("the index of this data set is not kept: %s", error)


def load_index(path: Path, signature: str) -> SceneIndex | None:
    """The index in a file, or None if there is none, it belongs to another state of the tree, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["signature"]) != signature:
                return None
            return _index_of({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _index_of(arrays: dict[str, np.ndarray]) -> SceneIndex:
    names, frames, broken = (
        StringTable(arrays[f"{name}_data"], arrays[f"{name}_lengths"]) for name in ("names", "frames", "broken")
    )
    columns = zip(
        names,
        _divide(frames, arrays["num_frames"]),
        arrays["is_video"].tolist(),
        arrays["is_metric"].tolist(),
        strict=True,
    )
    texts = list(broken)
    return SceneIndex([SceneSequence(*row) for row in columns], list(zip(texts[::2], texts[1::2], strict=True)))


def _divide(table: StringTable, counts: np.ndarray) -> Sequence[StringTable]:
    """Neighbouring parts of a table with these lengths, sharing its memory."""
    ends = np.cumsum(counts)
    byte_ends = np.concatenate([[0], np.cumsum(table.lengths, dtype=np.int64)])
    return [
        StringTable(table.data[byte_ends[end - count] : byte_ends[end]], table.lengths[end - count : end])
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]

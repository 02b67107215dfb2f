"""Finding files below a folder."""

import logging
import os
from collections import deque
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.path_table import PathTable, StringTable, encode_names
from omnistream.paths import expand_path

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".f4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv"}
    | {".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".mxf", ".dv", ".rm", ".rmvb"}
    | {".ogv", ".ogg", ".ogm", ".y4m", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".ivf", ".gif"}
)
"""Of containers and of bare streams, in lower case."""


def dataset_root(root: str | os.PathLike[str], expected: str, argument: str = "root") -> Path:
    """The root of a data set, with `~` and `$VAR` expanded.

    Args:
        root: Path given by the user.
        expected: The expected tree, in words.
        argument: Name of the argument, for the message.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ValueError: If it names an environment variable that is not set.
    """
    folder = expand_path(root)
    if not folder.is_dir():
        raise DatasetNotFoundError(f"no such folder: {folder}", expected, argument)
    return folder


def walk_folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder at any depth, as its path relative to `root` (`""` for the root) and the sorted names of its files.

    Links to folders are followed, and each folder is visited once: under its real path if that lies below the root,
    else under the first link to it; a link that is left out for this reason is named in a warning. Hidden files and
    folders are left out. So are folders without permission to list them, with a warning.
    """
    visited = {_identity(root): ""}
    folders, links = deque([""]), list[str]()
    while folders or links:
        if folders:
            relative = folders.popleft()
        else:
            # Only when no real folder is left, so that a link never takes the place of the folder it leads to.
            links.sort(reverse=True)
            relative = links.pop()
            if (first := _first_path(root, relative, visited)) != relative:
                _warn_of_link(root, relative, first)
                continue
        files: list[str] = []
        for entry in _entries(root / relative):
            path = f"{relative}/{entry.name}" if relative else entry.name
            if not _is_folder(entry):
                if _is_file(entry):
                    files.append(entry.name)
            elif entry.is_symlink():
                links.append(path)
            elif _first_path(root, path, visited) == path:
                folders.append(path)
        yield relative, sorted(files)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _first_path(root: Path, relative: str, visited: dict[tuple[int, int], str]) -> str:
    """The path under which a folder is visited: this one, if it was not visited before."""
    return visited.setdefault(_identity(root / relative), relative)


@lru_cache(maxsize=4096)  # once for each link, however often the tree is walked
def _warn_of_link(root: Path, relative: str, first: str) -> None:
    if not _is_within(relative, first):  # a link to a folder around itself leaves nothing out
        logger.warning(
            "%s leads to the same folder as %s and is left out: each folder is read once; copy it if both are meant",
            root / relative, root / first,
        )  # fmt: skip


def _is_within(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError:
        logger.warning("%s may not be listed; its files are left out", folder)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def find_files(root: Path, suffixes: Collection[str]) -> PathTable:
    """Files at any depth with one of these suffixes in any case, in the order of their folders, then of their names.

    Links are followed as by `walk_folders`.
    """
    found: list[tuple[str, tuple[bytes, np.ndarray]]] = []
    for folder, files in walk_folders(root):
        names = [name for name in files if os.path.splitext(name)[1].lower() in suffixes]  # noqa: PTH122 (in bulk)
        if names:
            found.append((folder, encode_names(names)))
    found.sort(key=lambda item: item[0].split("/"))
    counts = [len(lengths) for _, (_, lengths) in found]
    return PathTable(
        root=root,
        folders=StringTable.of(folder for folder, _ in found),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        names=StringTable.join([names for _, names in found]),
    )

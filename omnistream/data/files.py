"""Finding files below a folder, and dividing them into a training and a held-out part."""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from omnistream.data.media.errors import MediaReadError
from omnistream.data.quarantine import NothingUsableError, Quarantine

Split = Literal["all", "train", "val"]
"""`train` and `val` divide what is found; `all` takes everything, as for a folder that is one split already."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv", ".gif"}
)

Item = TypeVar("Item")


def existing_folder(root: str | Path) -> Path:
    """The folder as a path.

    Raises:
        NothingUsableError: If there is no such folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise NothingUsableError(f"no such folder: {folder}")
    return folder


def find_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """Files at any depth with one of these suffixes in any case, sorted; hidden files and folders are left out."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def split_items(items: Sequence[Item], split: Split, val_fraction: float) -> list[Item]:
    """Every k-th of the sorted items is held out, k = 1 / `val_fraction` rounded; `train` has the others.

    Raises:
        ValueError: If the split is unknown or the fraction not in (0, 0.5].
    """
    if split not in ("all", "train", "val"):
        raise ValueError(f"expected split all, train or val, got {split!r}")
    if not 0 < val_fraction <= 0.5:
        raise ValueError(f"expected a val_fraction in (0, 0.5], got {val_fraction}")
    if split == "all":
        return list(items)
    every = round(1 / val_fraction)
    return [item for position, item in enumerate(items) if (position % every == every - 1) == (split == "val")]


def require_usable(
    root: Path, what: str, files: Iterable[Path], check: Callable[[Path], object], quarantine: Quarantine
) -> None:
    """Return as soon as one of the files passes the check; record the broken ones before it.

    Raises:
        NothingUsableError: If there is no file, or all of them are broken.
        TooManyBrokenFilesError: If the quarantine's limit is passed before.
    """
    candidates = list(files)
    if not candidates:
        raise NothingUsableError(f"{root} holds no {what}")
    broken: list[str] = []
    for path in candidates:
        try:
            check(path)
            return
        except MediaReadError as error:
            broken.append(str(error))
            if len(broken) < len(candidates):
                quarantine.add(error, len(candidates))
    raise NothingUsableError(f"{root} holds no usable {what}; all {len(broken)} are broken: {'; '.join(broken[:5])}")

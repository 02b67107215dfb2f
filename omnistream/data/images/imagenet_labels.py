"""The files that label ImageNet's flat validation folder, and those that name its classes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnistream.data.errors import DatasetNotFoundError

KAGGLE_LABELS = "LOC_val_solution.csv"
KAGGLE_NAMES = "LOC_synset_mapping.txt"
DEVKIT = "ILSVRC2012_devkit_t12"
DEVKIT_LABELS = "ILSVRC2012_validation_ground_truth.txt"
EXPECTED = (
    f"class folders in val, {KAGGLE_LABELS} of Kaggle, or {DEVKIT}/data with {DEVKIT_LABELS} and meta.mat of the devkit"
)


@dataclass(frozen=True)
class FlatLabels:
    """Classes of images that lie in one folder."""

    of_file: dict[str, str]
    """WordNet id by name of the image, without suffix."""
    source: Path
    """The file that says so."""


def flat_labels(root: Path, folder: Path) -> FlatLabels:
    """Labels of a folder without class folders, by Kaggle's file or by the devkit.

    Args:
        root: Root of the data set; the files are looked for in it, and beside `ILSVRC`.
        folder: The folder with the images, for the message.

    Raises:
        DatasetNotFoundError: If neither file is there.
        ValueError: If one cannot be read.
    """
    for place in _places(root):
        if (path := place / KAGGLE_LABELS).is_file():
            return FlatLabels(_read_solution(path), path)
        for data in (place / DEVKIT / "data", place / "data", place):
            if (path := data / DEVKIT_LABELS).is_file():
                return FlatLabels(_read_ground_truth(path), path)
    raise DatasetNotFoundError(f"{folder} holds images without class folders, and nothing labels them", EXPECTED)


def class_names(root: Path, classes: Sequence[str]) -> list[str]:
    """What classes are called: the first name in Kaggle's `LOC_synset_mapping.txt` or in `labels.txt`, if there is one.

    Args:
        root: Root of the data set.
        classes: WordNet ids; one that has no name is its own.
    """
    names: dict[str, str] = {}
    for place in _places(root):
        for file, separator in ((KAGGLE_NAMES, " "), ("labels.txt", ",")):
            if (place / file).is_file():
                rows = (line.partition(separator) for line in (place / file).read_text("utf-8").splitlines())
                names |= {wnid: text.split(",")[0].strip() for wnid, _, text in rows}
    return [names.get(name) or name for name in classes]


def _places(root: Path) -> list[Path]:
    """The root and, where that is Kaggle's inner folder, the one it came in."""
    return [root, root.parent] if root.name == "ILSVRC" else [root]


def _read_solution(path: Path) -> dict[str, str]:
    """Kaggle: `ImageId,PredictionString`, the latter one or more of `wnid x1 y1 x2 y2`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        found = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError):
        found = {}
    if not found:
        raise ValueError(f"{path}: expected rows with the columns ImageId and PredictionString, both filled")
    return found


def _read_ground_truth(path: Path) -> dict[str, str]:
    """Devkit: line n is the ILSVRC2012_ID of image n; `meta.mat` has the WordNet id of each."""
    wnids = _read_meta(path.with_name("meta.mat"))
    lines = path.read_text().split()
    try:
        found = [wnids[int(line)] for line in lines]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: expected ids of classes in meta.mat, one a line; got {error}") from None
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(found, start=1)}


def _read_meta(path: Path) -> dict[int, str]:
    """WordNet id by ILSVRC2012_ID, of the classes that are not classes of classes."""
    from scipy.io import loadmat  # takes time
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise DatasetNotFoundError(f"{path} is missing: without it the ids of {DEVKIT_LABELS} mean nothing", EXPECTED)
    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        rows = [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), int(row["num_children"])) for row in synsets.reshape(-1)]
    except (KeyError, ValueError, TypeError, IndexError, OSError, MatReadError) as error:
        raise ValueError(f"{path} is not the devkit's meta.mat: {error}") from error
    return {number: wnid for number, wnid, children in rows if children == 0}

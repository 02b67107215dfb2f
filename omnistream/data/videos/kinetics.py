"""Kinetics-400, -600 and -700 with the official csv files, or a list of paths and labels."""

import csv
from pathlib import Path

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.videos.labelled_videos import UNLABELLED, Annotations, LabelledVideos, first_file

_SPLIT_NAMES = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
_FOLDERS = ("annotations", "")


class Kinetics(LabelledVideos):
    """Clips of Kinetics, in the folders of the CVDF download.

        <root>/annotations/{train,val,test}.csv    label,youtube_id,time_start,time_end,split[,is_cc]
        <root>/**/<youtube_id>_<start>_<end>.mp4   seconds with 6 digits, with or without class folders
        <root>/replacement/**                      take precedence over files of the same name

    Classes are numbered in alphabetical order of the names in `train.csv`, or in the split's own file without it. The
    probes released with V-JEPA have another order. In place of a csv file there may be a list of `path label` lines:
    paths below the root, and numbers of classes. Test files without labels give the label -1.
    """

    expected = (
        "annotations/{train,val,test}.csv (label,youtube_id,time_start,time_end,split) or lists of `path label` lines, "
        "and videos <youtube_id>_<start>_<end>.mp4 at any depth"
    )

    def _annotations(self) -> Annotations:
        source = self._source(self.split)
        rows = _read_csv(source)
        if rows is None:
            return self._list(source)
        rows = [row for row in rows if not row.get("split") or row["split"] in _SPLIT_NAMES[self.split]]
        classes = self._class_names(rows)
        numbers = {name: number for number, name in enumerate(classes)}
        if unknown := sorted({row["label"] for row in rows if row.get("label")} - set(classes)):
            raise ValueError(f"{source}: {len(unknown)} classes are not in train.csv, such as {unknown[0]!r}")
        videos = [_file_stem(source, row) for row in rows]
        labels = [numbers[row["label"]] if row.get("label") else UNLABELLED for row in rows]
        return Annotations(source, videos, labels, classes)

    def _rank(self, folder: str) -> int:
        parts = folder.split("/")
        return 0 if "replacement" in parts else 1 if set(parts) & set(_SPLIT_NAMES[self.split]) else 2

    def _source(self, split: str) -> Path:
        names = [f"{name}{suffix}" for suffix in (".csv", ".txt") for name in _SPLIT_NAMES[split]]
        return first_file(self.root, _FOLDERS, names, self.expected)

    def _class_names(self, rows: list[dict[str, str]]) -> list[str]:
        """Sorted names of the training file, as a split may lack labels or classes; else of these rows."""
        try:
            training = _read_csv(self._source("train")) or rows
        except DatasetNotFoundError:
            training = rows
        return sorted({row["label"] for row in training if row.get("label")})

    def _list(self, source: Path) -> Annotations:
        """Lines of a path and a number, separated by a space or `::`, as V-JEPA's own lists."""
        videos, labels = [], []
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition("::" if "::" in line else " ")
            if not path or not label.strip().isdecimal():
                raise ValueError(f"{source}, line {number}: expected a path and the number of a class, got {line!r}")
            videos.append(path.strip().removeprefix(f"{self.root.as_posix()}/"))
            labels.append(int(label))
        return Annotations(source, videos, labels, [], by_path=True)


def _read_csv(source: Path) -> list[dict[str, str]] | None:
    """The rows of an official file; None if it has no header and is a list."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "youtube_id" not in (reader.fieldnames or ()):
            return None
        return list(reader)


def _file_stem(source: Path, row: dict[str, str]) -> str:
    try:
        start, end = (round(float(row[key])) for key in ("time_start", "time_end"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: expected time_start and time_end in seconds, got {row}") from error
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"

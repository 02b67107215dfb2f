"""Something-Something V2 with its official JSON files."""

import csv
import json
from pathlib import Path
from typing import Any

from omnistream.data.videos.labelled_videos import UNLABELLED, Annotations, LabelledVideos, first_file

_PREFIXES = ("", "something-something-v2-")
_FOLDERS = ("labels", "annotations", "")
_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


class SomethingSomething(LabelledVideos):
    """Clips of Something-Something V2, in the folders of the download.

        <root>/labels/{labels,train,validation,test}.json     or something-something-v2-*.json, also in <root> itself
        <root>/labels/test-answers.csv                        id;template, without which test labels are -1
        <root>/20bn-something-something-v2/<id>.webm

    The class of a video is the number that `labels.json` gives its template without brackets: 0 to 173. Classes such as
    "Pulling something from left to right" forbid horizontal flips.
    """

    expected = (
        "labels/{labels,train,validation,test}.json (or something-something-v2-*.json) and videos "
        "20bn-something-something-v2/<id>.webm"
    )

    def _annotations(self) -> Annotations:
        labels_file, source = self._source("labels"), self._source(_SPLIT_NAMES[self.split])
        numbers = _class_numbers(labels_file)
        records = _read_json(source, list)
        answers = self._answers() if self.split == "test" else {}
        videos, labels = [], []
        for record in records:
            if not isinstance(record, dict) or "id" not in record:
                raise ValueError(f"{source}: expected records with an id, got {record!r}")
            name = str(record["id"])
            template = record.get("template") or answers.get(name)
            if template is None and self.split != "test":
                raise ValueError(f"{source}: video {name} has no template")
            videos.append(name)
            labels.append(UNLABELLED if template is None else _number(numbers, template, source, name))
        return Annotations(source, videos, labels, sorted(numbers, key=lambda template: numbers[template]))

    def _source(self, name: str) -> Path:
        return first_file(self.root, _FOLDERS, [f"{prefix}{name}.json" for prefix in _PREFIXES], self.expected)

    def _answers(self) -> dict[str, str]:
        """Templates of the test videos, where they are there."""
        for folder in _FOLDERS:
            if (path := self.root / folder / "test-answers.csv").is_file():
                with path.open(newline="", encoding="utf-8-sig") as file:
                    return {row[0]: row[1] for row in csv.reader(file, delimiter=";") if len(row) == 2}
        return {}


def _number(numbers: dict[str, int], template: str, source: Path, name: str) -> int:
    plain = template.replace("[", "").replace("]", "")
    if plain not in numbers:
        raise ValueError(f"{source}: video {name} is of class {plain!r}, which is not among the {len(numbers)} labels")
    return numbers[plain]


def _class_numbers(path: Path) -> dict[str, int]:
    """Number of every class; the file has them as strings."""
    found = _read_json(path, dict)
    try:
        numbers = {template: int(number) for template, number in found.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a number for every template ({error})") from error
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(f"{path}: the {len(numbers)} classes are not numbered 0 to {len(numbers) - 1}")
    return numbers


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file ({error})") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: expected a {kind.__name__}, got a {type(content).__name__}")
    return content

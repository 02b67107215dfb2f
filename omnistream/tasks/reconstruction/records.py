"""Outcomes of videos on disk, one file each, so that an evaluation that was stopped goes on with the next video."""

import hashlib
import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnistream.paths import expand_path
from omnistream.tasks.reconstruction.outcome import SequenceOutcome

FOLDER = "sequences"
"""Name of the folder of outcomes within that of a test."""


def outcome_key(settings: dict[str, Any]) -> str:
    """SHA-256 of everything that decides an outcome, given as plain values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def file_name(name: str) -> str:
    """Name of a video's file: its own, or where that is not allowed in one, a similar one that no other video has."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip(".")[:120]
    return f"{safe or 'video'}{'' if safe == name else '-' + hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


class SequenceRecords:
    """The outcomes of one test.

    Args:
        folder: Of the test, in which they are written to `sequences`; None keeps nothing.
        resume: Folder of a test that was stopped, or its folder `sequences`.

    Raises:
        FileNotFoundError: If `resume` holds no outcomes.
    """

    def __init__(self, folder: Path | None, resume: Path | str | None = None) -> None:
        self.folder = None if folder is None else folder / FOLDER
        self._earlier: Path | None = None
        if resume is not None:
            given = expand_path(resume)
            self._earlier = given / FOLDER if (given / FOLDER).is_dir() else given
            if not any(self._earlier.glob("*.json")):
                raise FileNotFoundError(
                    f"nothing to resume at {given}: no {FOLDER}/*.json; give the log folder of the stopped test"
                )

    def finished(self, name: str, key: str) -> SequenceOutcome | None:
        """What the stopped test found for a video; None if it did not finish it, or with something else.

        Args:
            name: Of the video.
            key: From `outcome_key`.
        """
        path = None if self._earlier is None else self._earlier / file_name(name)
        if path is None or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # not written by us: ours are whole or not there
            return None
        if not isinstance(content, dict) or content.pop("key", None) != key:
            return None
        content["values"] = {metric: float(value) for metric, value in content["values"].items()}
        return SequenceOutcome(**content)

    def write(self, outcome: SequenceOutcome, key: str) -> None:
        """Keep the outcome of a video; the file is there as a whole or not at all."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / file_name(outcome.name)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(plain(outcome) | {"key": key}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(path)

    def keep_only(self, names: list[str]) -> None:
        """Remove the files of videos that an earlier test in the same folder had and this one has not."""
        if self.folder is not None and self.folder.is_dir():
            for path in set(self.folder.glob("*.json")) - {self.folder / file_name(name) for name in names}:
                path.unlink()


def plain(outcome: SequenceOutcome) -> dict[str, Any]:
    """As JSON has it: values that it lacks (NaN, infinities) as strings."""
    content = asdict(outcome)
    values = {name: value if math.isfinite(value) else str(value) for name, value in outcome.values.items()}
    return content | {"values": values}

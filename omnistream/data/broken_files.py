"""Data sets that skip broken files: each is logged once with its path, counted, and past a limit the run stops."""

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from torch.utils.data import Dataset

from omnistream.data.errors import DatasetNotFoundError, TooManyBrokenFilesError
from omnistream.data.media.errors import MediaReadError
from omnistream.data.sampling import SampleKey, sample_key, sample_rng
from omnistream.paths import expand_path

logger = logging.getLogger(__name__)

Sample = TypeVar("Sample")
SampleT = TypeVar("SampleT", covariant=True)

_REPLACEMENT_SALT = 7919
"""Separates the choice of a replacement from everything else drawn for the same sample."""


class BrokenFiles:
    """The broken files of one data set.

    Each data loader worker has its own copy. With `file`, all of them (and later runs) share what they found through
    it; without, a limit holds per worker.

    Args:
        limit: Most broken files that are skipped: a count, or (a float below 1) a fraction of all files, at least 1.
        file: Optional JSON lines file, one `{"path", "reason"}` per broken file, appended to.

    Raises:
        ValueError: If the limit is negative or a fraction of 1 or more.
    """

    def __init__(self, limit: int | float = 0.2, file: str | Path | None = None) -> None:
        if limit < 0 or (isinstance(limit, float) and limit >= 1):
            raise ValueError(f"expected a count or a fraction in [0, 1) of broken files, got {limit}")
        self.limit = limit
        self.file = None if file is None else expand_path(file)
        self._reasons: dict[str, str] = {}

    @property
    def count(self) -> int:
        """Number of broken files known so far."""
        return len(self.reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Path and reason of every broken file known so far."""
        self._read_file()
        return dict(self._reasons)

    def add(self, error: MediaReadError, num_files: int) -> None:
        """Record a broken file; the first time, log it.

        Args:
            error: What was wrong with which file.
            num_files: Files of the data set, for a limit that is a fraction.

        Raises:
            TooManyBrokenFilesError: If there are now more than the limit.
        """
        self._read_file()
        if error.path not in self._reasons:
            self._reasons[error.path] = error.reason
            logger.warning("skipped broken file number %d: %s", len(self._reasons), error)
            self._append_file(error)
        self._check(num_files)

    def allowed(self, num_files: int) -> int:
        """Most broken files of this many."""
        return self.limit if isinstance(self.limit, int) else max(1, int(self.limit * num_files))

    def _check(self, num_files: int) -> None:
        allowed = self.allowed(num_files)
        if len(self._reasons) > allowed:
            raise TooManyBrokenFilesError(
                f"{len(self._reasons)} of {num_files} files are broken, {allowed} are allowed: {self.summary()}"
            )

    def summary(self, most: int = 10) -> str:
        """The first broken files with their reasons, on one line."""
        shown = [f"{path} ({reason})" for path, reason in list(self._reasons.items())[:most]]
        rest = len(self._reasons) - len(shown)
        return ", ".join(shown) + (f" and {rest} more" if rest else "")

    def _read_file(self) -> None:
        if self.file is None or not self.file.exists():
            return
        for line in self.file.read_text().splitlines():
            entry = json.loads(line)
            self._reasons.setdefault(entry["path"], entry["reason"])

    def _append_file(self, error: MediaReadError) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as lines:  # one short write in append mode: workers do not tear each other's lines
            lines.write(json.dumps({"path": error.path, "reason": error.reason}) + "\n")


def read_or_replace(
    read: Callable[[SampleKey], Sample],
    key: "int | SampleKey",
    *,
    num_samples: int,
    num_files: int,
    seed: int,
    broken_files: BrokenFiles,
    max_tries: int = 8,
) -> Sample:
    """Read a sample; where a file is broken, another one drawn by a rule of (seed, epoch, index).

    Args:
        read: Reads the sample of a key; raises MediaReadError for a broken file.
        key: The wanted sample.
        num_samples: Length of the data set.
        num_files: Its files, for the limit of broken ones.
        seed: Of the data set.
        broken_files: Records them.
        max_tries: Different samples tried in all.

    Raises:
        IndexError: If the index is outside the data set.
        TooManyBrokenFilesError: If there are more broken files than allowed, or every try met one.
    """
    wanted = sample_key(key)
    if not 0 <= wanted.index < num_samples:
        raise IndexError(f"index {wanted.index} is outside a data set of {num_samples} samples")
    tried, attempt = {wanted.index}, wanted
    rng = sample_rng(seed, wanted, _REPLACEMENT_SALT)
    while True:
        try:
            return read(attempt)
        except MediaReadError as error:
            broken_files.add(error, num_files)
        if len(tried) >= min(max_tries, num_samples):
            break
        while attempt.index in tried:
            attempt = SampleKey(wanted.epoch, int(rng.integers(num_samples)))
        tried.add(attempt.index)
    raise TooManyBrokenFilesError(f"{len(tried)} samples in a row could not be read: {broken_files.summary()}")


class FileDataset(Dataset[SampleT]):
    """Base of data sets that read files: a sample with a broken file is replaced by another one.

    A subclass says how many samples there are, and how many files unless each has one, and reads one sample.

    Args:
        seed: Determines replacements, and whatever the subclass draws.
        broken_files: Records broken files; by default up to 20 % are skipped.
    """

    takes_keys = True

    def __init__(self, seed: int = 0, broken_files: BrokenFiles | None = None) -> None:
        self.seed = seed
        self.broken_files = BrokenFiles() if broken_files is None else broken_files

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @property
    def num_files(self) -> int:
        """Number of files, for a limit of broken ones that is a fraction of them; by default one per sample."""
        return len(self)

    @abstractmethod
    def _read(self, key: SampleKey) -> SampleT:
        """The sample of a key; raises MediaReadError for a broken file."""

    def __getitem__(self, key: int | SampleKey) -> SampleT:
        """The sample of this key, or a replacement if a file of it is broken.

        Raises:
            IndexError: If the index is outside the data set.
            TooManyBrokenFilesError: If more files are broken than allowed.
        """
        return read_or_replace(
            self._read,
            key,
            num_samples=len(self),
            num_files=self.num_files,
            seed=self.seed,
            broken_files=self.broken_files,
        )


def require_readable(
    what: str, root: Path, files: Sequence[Path], check: Callable[[Path], object], broken_files: BrokenFiles
) -> None:
    """Return as soon as one of the files passes the check; record the broken ones before it.

    Raises:
        DatasetNotFoundError: If all files are broken.
        TooManyBrokenFilesError: If the limit is passed before.
    """
    broken: list[str] = []
    for path in files:
        try:
            check(path)
            return
        except MediaReadError as error:
            broken.append(str(error))
            if len(broken) < len(files):
                broken_files.add(error, len(files))
    raise DatasetNotFoundError(
        f"{root} holds no readable {what}; all {len(broken)} are broken: {'; '.join(broken[:5])}"
    )

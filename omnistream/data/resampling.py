"""Base of the data sets that read files, some of which may be broken."""

from abc import abstractmethod
from typing import TypeVar

from torch.utils.data import Dataset

from omnistream.data.quarantine import Quarantine, read_or_resample
from omnistream.data.sampling import SampleKey

SampleT = TypeVar("SampleT", covariant=True)


class ResamplingDataset(Dataset[SampleT]):
    """Gives the sample of a key; where a file of it is broken, records that and gives another sample.

    A subclass says how many samples and files there are and reads one sample.

    Args:
        seed: Determines replacements, and whatever the subclass draws.
        quarantine: Records broken files; by default up to 20 % are skipped.
    """

    def __init__(self, seed: int = 0, quarantine: Quarantine | None = None) -> None:
        self.seed = seed
        self.quarantine = Quarantine() if quarantine is None else quarantine

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def num_files(self) -> int:
        """Number of files, for a limit of the quarantine that is a share of them."""

    @abstractmethod
    def _read(self, key: SampleKey) -> SampleT:
        """The sample of a key; raises MediaReadError for a broken file."""

    def __getitem__(self, key: int | SampleKey) -> SampleT:
        """The sample of this key, or a replacement if a file of it is broken.

        Raises:
            IndexError: If the index is outside the data set.
            TooManyBrokenFilesError: If more files are broken than the quarantine allows.
        """
        return read_or_resample(
            self._read,
            key,
            num_samples=len(self),
            num_files=self.num_files,
            seed=self.seed,
            quarantine=self.quarantine,
        )

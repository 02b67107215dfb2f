"""Features of whole data sets in a folder: computed once, by any number of processes, and read memory-mapped."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnistream.evaluation.cache import FeatureBatch, FeatureSet
from omnistream.paths import apply_umask

logger = logging.getLogger(__name__)

StoreDtype = Literal["bfloat16", "float32"]
"""PyTorch's name of the type in which features are kept."""

SCHEMA = "omnistream/features/1"
"""Changes whenever the files change their meaning."""
MAX_SHARD_BYTES = 64 * 2**20
"""Of the features in one file: what a kill loses at most, per process."""
MAX_SHARD_SAMPLES = 1024
_HEADER = "store.json"


class FeatureStore:
    """A folder of shards, `shard-00000.safetensors` and so on, and `store.json` that says what is in them.

    Shard k holds the samples k S to (k + 1) S of the data set in its order, so the folder does not depend on how many
    processes filled it. A shard appears under its name when it is complete: after a kill those that were finished are
    kept, and the others are written again.

    Args:
        folder: Of one data set; see `FeatureStore.create`.

    Raises:
        ValueError: If `store.json` is not one of this schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / _HEADER
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            header = None
        if not isinstance(header, dict) or header.get("schema") != SCHEMA:
            raise ValueError(f"{path} does not describe stored features of schema {SCHEMA}; delete the folder")
        self.num_samples, self.shard_samples = int(header["num_samples"]), int(header["shard_samples"])
        self.dtype: torch.dtype = getattr(torch, header["dtype"])
        self.empty = FeatureBatch(
            torch.empty(0, *header["features"], dtype=self.dtype),
            torch.empty(0, *header["target"], dtype=getattr(torch, header["target_dtype"])),
        )
        """Features and targets of no samples."""

    @classmethod
    def create(
        cls, folder: Path, example: FeatureBatch, num_samples: int, dtype: StoreDtype, about: Mapping[str, Any]
    ) -> "FeatureStore":
        """Make the folder, or open it where it exists.

        Args:
            folder: Named after a fingerprint of everything that decides the features.
            example: Of one sample, whose size decides how many go into a shard.
            num_samples: Length of the data set.
            dtype: In which features are kept; targets keep their own.
            about: What the features are of, for people who read `store.json`.
        """
        if not (folder / _HEADER).exists():
            folder.mkdir(parents=True, exist_ok=True)
            size = example.features.numel() * getattr(torch, dtype).itemsize + example.target.nbytes
            header = {
                "schema": SCHEMA,
                "num_samples": num_samples,
                "shard_samples": max(1, min(MAX_SHARD_SAMPLES, MAX_SHARD_BYTES // size)),
                "dtype": dtype,
                "features": list(example.features.shape[1:]),
                "target": list(example.target.shape[1:]),
                "target_dtype": str(example.target.dtype).removeprefix("torch."),
                "about": about,
            }
            draft = folder / f".{_HEADER}.{os.getpid()}"
            draft.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
            draft.replace(folder / _HEADER)
        return cls(folder)

    def __len__(self) -> int:
        """Number of shards."""
        return -(-self.num_samples // self.shard_samples)

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def samples(self, shard: int) -> range:
        """Indices of the samples of a shard in the data set."""
        first = shard * self.shard_samples
        return range(first, min(first + self.shard_samples, self.num_samples))

    def missing(self) -> list[int]:
        """Shards that are not there, or not whole."""
        return [shard for shard in range(len(self)) if not self._is_whole(shard)]

    def _is_whole(self, shard: int) -> bool:
        path = self.path(shard)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice("present").get_shape() == [len(self.samples(shard))]
        except SafetensorError as error:
            logger.warning("%s is not whole and is computed again: %s", path, error)
            return False

    def write(self, shard: int, batches: Sequence[FeatureBatch], present: Sequence[bool]) -> None:
        """Write a shard.

        Args:
            shard: Its number.
            batches: Features of those of its samples that could be read.
            present: Which these are.

        Raises:
            ValueError: If there are not as many.
        """
        features = torch.cat([self.empty.features, *(batch.features.to(self.dtype) for batch in batches)])
        target = torch.cat([self.empty.target, *(batch.target for batch in batches)])
        if not len(features) == len(target) == sum(present) or len(present) != len(self.samples(shard)):
            raise ValueError(
                f"a data set gave {len(features)} features and {len(target)} targets for {sum(present)} samples; "
                "features can only be kept in a folder if there is one of each per sample"
            )
        draft = self.folder / f".{self.path(shard).name}.{os.getpid()}"
        save_file({"features": features, "target": target, "present": torch.tensor(present)}, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # or a power failure could leave a file with a name and no content
        apply_umask(draft)
        draft.replace(self.path(shard))

    def read(self, shard: int) -> FeatureBatch:
        """A shard, mapped into memory: pages are read when they are used."""
        tensors = load_file(self.path(shard))
        return FeatureBatch(tensors["features"], tensors["target"])

    def present(self) -> Bool[Tensor, " N"]:
        """Which samples of the data set could be read."""
        parts = []
        for shard in range(len(self)):
            with safe_open(self.path(shard), framework="pt") as file:
                parts.append(file.get_tensor("present"))
        return torch.cat(parts)


class StoredFeatures(FeatureSet):
    """Features of some samples of a store, as float32; samples that could not be read are left out.

    Args:
        store: With all shards.
        indices: Of this process's samples in the data set, in order.
        repeated: How many of the last samples another process has too; `statistics` leaves them out.
    """

    def __init__(self, store: FeatureStore, indices: Sequence[int], repeated: int = 0) -> None:
        present, wanted = store.present(), torch.tensor(indices, dtype=torch.int64)
        self.store, self.indices = store, wanted[present[wanted]]
        self._num_own = int(present[wanted[: len(wanted) - repeated]].sum())
        self._rows = torch.cat([part.cumsum(0) - 1 for part in present.split(store.shard_samples)])
        self._shards: dict[int, FeatureBatch] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shards": {}}  # another process maps the files itself

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: list[int]) -> FeatureBatch:
        """A batch, gathered from the shards in which its samples are."""
        if not indices:
            return FeatureBatch(self.store.empty.features.float(), self.store.empty.target)
        wanted = self.indices[indices]
        shards, rows = wanted // self.store.shard_samples, self._rows[wanted]
        order = shards.argsort(stable=True)
        numbers, counts = shards[order].unique_consecutive(return_counts=True)
        parts = [
            (self._shard(number), own)
            for number, own in zip(numbers.tolist(), rows[order].split(counts.tolist()), strict=True)
        ]
        back = order.argsort()
        features = torch.cat([shard.features[own] for shard, own in parts])[back]
        return FeatureBatch(features.float(), torch.cat([shard.target[own] for shard, own in parts])[back])

    def own_rows(self) -> Iterator[Float[Tensor, "N D"]]:
        """Feature vectors of the samples that no other process has, a shard's worth at a time."""
        for positions in torch.arange(self._num_own).split(self.store.shard_samples):
            yield self.__getitems__(positions.tolist()).features.flatten(0, -2)

    def _shard(self, number: int) -> FeatureBatch:
        if number not in self._shards:
            self._shards[number] = self.store.read(number)
        return self._shards[number]

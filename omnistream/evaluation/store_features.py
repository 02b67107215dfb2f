"""Fills the folder in which a probe keeps features, and opens it."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader
from tqdm import tqdm

from omnistream import distributed
from omnistream.evaluation.cache import FeatureBatch, repeated_samples
from omnistream.evaluation.called_code import called_code
from omnistream.evaluation.environment import versions
from omnistream.evaluation.feature_store import FeatureStore, StoredFeatures
from omnistream.evaluation.fingerprint import fingerprint, model_fingerprint
from omnistream.paths import expand_path


@torch.no_grad()
def store_features(probe: Any, loader: DataLoader, *, training: bool) -> StoredFeatures:
    """Features of this process's share of a data set, from the folder of a `FrozenProbe`; see its `store_all`."""
    mode = probe.training
    probe.train(training)
    store = _open(probe, loader, training)
    missing: list[int] = distributed.gather_objects(store.missing())[0]  # the first process's: others may be late
    if missing:
        rank_zero_info(f"Features: {len(missing)} of {len(store)} shards are computed into {store.folder}")
    _fill(probe, store, missing[distributed.rank() :: distributed.world_size()], loader)
    distributed.gather_objects(None)  # all are done
    probe.train(mode)
    if absent := [shard for shard in missing if not store.path(shard).exists()]:
        raise RuntimeError(
            f"{store.folder} lacks {len(absent)} shards that other processes wrote: cache must be a folder that all "
            "of them share"
        )
    if left_out := int((~store.present()).sum()):
        rank_zero_warn(f"{left_out} of {store.num_samples} samples could not be read: {store.folder} lacks them")
    indices = [index for batch in loader.batch_sampler or () for index in batch]
    return StoredFeatures(store, indices, repeated_samples(loader))


def _open(probe: Any, loader: DataLoader, training: bool) -> FeatureStore:
    """The store of these features, made by the first process where there is none."""
    dataset: Any = loader.dataset
    parts = {
        "backbone": model_fingerprint(probe.backbone),
        "data": fingerprint((dataset, loader.collate_fn)),
        "features": fingerprint((called_code(type(probe), "features", "targets"), probe.feature_options(), training)),
        "versions": {name: versions()[name] for name in ("omnistream", "torch")},
        "dtype": probe.cache_dtype,
        "precision": probe.precision,
    }
    folder = expand_path(str(probe.cache)) / fingerprint(parts)[:20]
    if distributed.rank() == 0 and not (folder / "store.json").exists():
        source = dataset
        while hasattr(source, "dataset"):  # of a subset
            source = source.dataset
        about = {
            "model": type(probe.backbone).__name__,
            "data": type(source).__name__,
            "transform": repr(getattr(source, "transform", None)),
            "options": json.loads(json.dumps(probe.feature_options(), default=str)),
            "training": training,
            "fingerprints": parts,
        }
        example = _example(probe, loader)
        FeatureStore.create(folder, example, len(dataset), probe.cache_dtype, about)
    distributed.gather_objects(None)  # the first process has made it
    return FeatureStore(folder)


def _example(probe: Any, loader: DataLoader) -> FeatureBatch:
    """Features of the first sample that can be read."""
    dataset: Any = loader.dataset
    for index in range(len(dataset)):
        if (batch := loader.collate_fn([dataset[index]])) is not None:  # type: ignore[misc]
            return probe.extract_to_cpu(batch)
    raise ValueError(f"no samples to take features of: none of {len(dataset)} can be read")


def _fill(probe: Any, store: FeatureStore, shards: Sequence[int], loader: DataLoader) -> None:
    """Compute some shards, in batches that depend on the shard alone."""
    size: int = loader.batch_sampler.batch_size  # type: ignore[union-attr, attr-defined]
    parts = {shard: _split(store.samples(shard), size) for shard in shards}
    batches = [list(part) for shard in shards for part in parts[shard]]
    collate = partial(_with_presence, loader.collate_fn)
    found = iter(DataLoader(loader.dataset, batch_sampler=batches, collate_fn=collate, num_workers=loader.num_workers))
    for shard in tqdm(shards, desc="features", unit="shard", disable=True if distributed.rank() else None):
        features, present = list[FeatureBatch](), list[bool]()
        for _ in parts[shard]:
            batch, read = next(found)
            present += read
            if batch is not None:
                features.append(probe.extract_to_cpu(batch))
        store.write(shard, features, present)


def _with_presence(collate: Callable[[list[Any]], Any], samples: list[Any]) -> tuple[Any, list[bool]]:
    """A batch, and which of the samples could be read."""
    return collate(samples), [sample is not None for sample in samples]


def _split(samples: range, size: int) -> list[range]:
    """Consecutive parts of at most `size`."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]

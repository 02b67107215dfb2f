import json
import multiprocessing
import threading
from pathlib import Path

import pytest
import torch
from probes import ColourProbe, Colours, backbone, trainer
from processes import gloo, run_ranks
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.evaluation import FeatureBatch, FeatureStore, StoredFeatures, feature_store, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Counting(ColourProbe):
    """Counts the samples whose features it computes, and may be killed after some."""

    seen, fatal = 0, None

    def features(self, batch):
        if self.fatal is not None and self.seen + len(batch.images) > self.fatal:
            raise KeyboardInterrupt
        self.seen += len(batch.images)
        return super().features(batch)


class Transformed(Colours):
    """Colours through a transform."""

    def __init__(self, num_samples, transform=None, offset=0):
        super().__init__(num_samples, offset)
        self.transform = transform

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if self.transform is not None:
            sample.images = self.transform(sample.images)
        return sample


SHARD_SAMPLES = 10


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(feature_store, "MAX_SHARD_SAMPLES", SHARD_SAMPLES)


def loader_of(dataset, batch_size=4):
    return EvaluationDataModule(train=dataset, batch_size=batch_size)._shared(dataset, False)


def stored(folder, dataset, model=None, kind=Counting, batch_size=4, training=True, **options):
    """Features of a data set from a folder, and how many were computed for it."""
    probe = kind(model or backbone(), cache=folder, **options)
    features = probe.store_all(loader_of(dataset, batch_size), training=training)
    return features, probe.seen


def direct(dataset, model=None):
    probe = ColourProbe(model or backbone())
    return torch.cat([probe.extract(FrameClip.collate([dataset[i]])).features for i in range(len(dataset))])


def test_a_folder_gives_the_features_in_the_order_of_the_data_set(tmp_path):
    exact, seen = stored(tmp_path, Colours(23), cache_dtype="float32")
    assert seen == 23 + 1  # the first one once more, for its size
    assert len(exact) == 23
    batch = exact.__getitems__([22, 3, 3, 10, 9])
    torch.testing.assert_close(batch.features, direct(Colours(23))[[22, 3, 3, 10, 9]], atol=1e-6, rtol=1e-5)
    assert batch.target.tolist() == [22 % 3, 0, 0, 1, 0]
    rounded, _ = stored(tmp_path, Colours(23))
    everything = list(range(23))
    assert rounded.store.folder != exact.store.folder
    assert torch.equal(
        rounded.__getitems__(everything).features, exact.__getitems__(everything).features.bfloat16().float()
    )
    files = sorted(path.name for path in rounded.store.folder.iterdir())
    assert files == [*(f"shard-{k:05d}.safetensors" for k in range(3)), "store.json"]
    assert load_file(rounded.store.path(2))["features"].dtype == torch.bfloat16
    about = json.loads((rounded.store.folder / "store.json").read_text())["about"]
    assert (about["model"], about["data"], about["training"]) == ("OmniStream", "Colours", True)


def test_what_is_there_is_not_computed_again_by_other_probes_either(tmp_path):
    _, first = stored(tmp_path, Colours(12))
    assert first > 0

    class OtherHead(Counting):
        def make_head(self, setting):
            return nn.Linear(self.backbone.embed_dim, 4)

    assert stored(tmp_path, Colours(12))[1] == 0
    assert stored(tmp_path, Colours(12), kind=OtherHead, lrs=(1.0, 2.0), batch_size=5, seed=3)[1] == 0


def another_weight():
    model = backbone()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    return model


def another_mean():
    model = backbone()
    model.mean += 0.01
    return model


class OtherFeatures(Counting):
    def features(self, batch):
        return super().features(batch) * 2


def _doubled(self, batch):
    return FrameClip.collate([Colours(99)[0]]).images.float().flatten(1).expand(len(batch.images), -1)


class OtherBase(type("Base", (Counting,), {"features": _doubled})):
    """The method is that of `Counting`'s subclass, what it calls is not."""

    def features(self, batch):
        return super().features(batch)


class SameMethod(Counting):
    def features(self, batch):
        return super().features(batch)


class OtherOptions(Counting):
    def feature_options(self):
        return {"layer": 3}


class OtherTargets(Counting):
    def targets(self, batch):
        return batch.label + 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": another_weight},
        {"model": another_mean},
        {"kind": OtherFeatures},
        {"kind": OtherOptions},
        {"kind": OtherTargets},
        {"training": False},
        {"dataset": lambda: Transformed(12, v2.RandomHorizontalFlip(p=0.0))},
        {"dataset": lambda: Transformed(12, v2.Resize(16))},
        {"dataset": lambda: Transformed(12, lambda images: images // 2)},
        {"dataset": lambda: Transformed(12, v2.RandomHorizontalFlip(p=1.0), offset=1)},
        {"dataset": lambda: Transformed(13, v2.RandomHorizontalFlip(p=1.0))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_features_leads_to_a_store_of_its_own(tmp_path, change):
    flip = v2.RandomHorizontalFlip(p=1.0)
    stored(tmp_path, Transformed(12, flip))
    options = {name: value if name in ("kind", "training") else value() for name, value in change.items()}
    found, seen = stored(tmp_path, options.pop("dataset", None) or Transformed(12, flip), **options)
    assert seen > 0
    assert len(list(tmp_path.iterdir())) == 2
    if "dataset" in change:
        expected = direct(change["dataset"]()).bfloat16().float()
        torch.testing.assert_close(found.__getitems__(list(range(12))).features, expected[:12], atol=0.02, rtol=0.02)


def test_an_overridden_method_counts_too(tmp_path):
    stored(tmp_path, Colours(12), kind=SameMethod)
    stored(tmp_path, Colours(12), kind=OtherBase)
    assert len(list(tmp_path.iterdir())) == 2


def _brightness(batch):
    return _mean(batch.images)


def _mean(images):
    return images.float().flatten(1).mean(1, keepdim=True)


class Helped(Counting):
    factor = 2

    def features(self, batch):
        self.seen += len(batch.images)
        return self._scaled(batch)

    def _scaled(self, batch):
        return torch.cat([one * self.factor for one in _brightness(batch).split(1)])


class OtherHelper(Helped):
    def _scaled(self, batch):
        return 3 * _brightness(batch)


class OtherFactor(Helped):
    factor = 3


@pytest.mark.parametrize("kind", [OtherHelper, OtherFactor])
def test_an_overridden_helper_counts_too(tmp_path, kind):
    first, _ = stored(tmp_path, Colours(12), kind=Helped, cache_dtype="float32")
    second, seen = stored(tmp_path, Colours(12), kind=kind, cache_dtype="float32")
    assert seen > 0
    ratio = second.__getitems__([5]).features / first.__getitems__([5]).features
    assert float(ratio) == pytest.approx(1.5)


def test_a_replaced_function_counts_however_deep_it_is_called(tmp_path, monkeypatch):
    stored(tmp_path, Colours(12), kind=Helped)
    assert stored(tmp_path, Colours(12), kind=Helped)[1] == 0
    monkeypatch.setitem(globals(), "_mean", lambda images: images.float().flatten(1).amax(1, keepdim=True))
    assert stored(tmp_path, Colours(12), kind=Helped)[1] > 0


def test_helpers_of_the_library_count(monkeypatch):
    from omnistream.evaluation.called_code import called_code
    from omnistream.tasks.probing import action, classification

    before = fingerprint(called_code(classification.LinearClassification, "features", "targets"))
    assert fingerprint(called_code(classification.LinearClassification, "features", "targets")) == before
    monkeypatch.setattr(classification, "image_features", lambda *_: None)
    assert fingerprint(called_code(classification.LinearClassification, "features", "targets")) != before
    before = fingerprint(called_code(action.AttentiveActionProbe, "features", "targets"))
    monkeypatch.setattr(action, "clip_tokens", lambda *_: None)
    assert fingerprint(called_code(action.AttentiveActionProbe, "features", "targets")) != before


def test_functions_are_told_apart_by_their_code_and_what_they_hold():
    def scaled(factor):
        return lambda images: images * factor

    assert fingerprint(scaled(2)) == fingerprint(scaled(2)) != fingerprint(scaled(3))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    assert fingerprint(lambda x: x.sin()) != fingerprint(lambda x: x.cos())
    assert fingerprint({"a": 1}) != fingerprint({"a": True}) != fingerprint({"a": "1"})
    assert fingerprint([[1], 2]) != fingerprint([1, [2]])
    assert fingerprint({"x", "yy", "z"}) == fingerprint({"z", "yy", "x"})
    assert fingerprint(torch.zeros(2, 3)) != fingerprint(torch.zeros(3, 2))
    itself = [1]
    itself.append(itself)
    assert fingerprint(itself) == fingerprint(itself)


def test_broken_files_that_were_met_do_not_count_and_locks_are_named(tmp_path):
    from omnistream.data.broken_files import BrokenFiles
    from omnistream.data.media.errors import MediaReadError

    known = BrokenFiles()
    before = fingerprint(known)
    known.add(MediaReadError("x.jpg", "broken"), 10)
    assert fingerprint(known) == before != fingerprint(BrokenFiles(3))
    dataset = Transformed(3)
    dataset.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"a lock has state that cannot be compared.*__getstate__"):
        stored(tmp_path, dataset)


def test_after_a_kill_finished_shards_are_kept_and_half_ones_computed_again(tmp_path):
    probe = Counting(backbone(), cache=tmp_path)
    probe.fatal = 1 + 10 + 10 + 4  # in the middle of the third shard
    with pytest.raises(KeyboardInterrupt):
        probe.store_all(loader_of(Colours(34)), training=True)
    (folder,) = tmp_path.iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard*")}
    assert sorted(kept) == ["shard-00000.safetensors", "shard-00001.safetensors"]
    features, seen = stored(tmp_path, Colours(34))
    assert seen == 14
    assert all((folder / name).stat().st_mtime_ns == time for name, time in kept.items())
    whole = features.__getitems__(list(range(34))).features
    shard = folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])  # as after a power failure
    features, seen = stored(tmp_path, Colours(34))
    assert seen == 10
    assert torch.equal(features.__getitems__(list(range(34))).features, whole)


def test_a_shard_of_another_length_is_not_whole_and_is_not_written(tmp_path):
    def batch(count):
        return FeatureBatch(torch.zeros(count, 2), torch.zeros(count))

    (tmp_path / "a").mkdir()  # as after a kill before anything was written
    store = FeatureStore.create(tmp_path / "a", batch(1), 25, "bfloat16", {})
    assert [len(store.samples(k)) for k in range(len(store))] == [10, 10, 5]
    with pytest.raises(ValueError, match="9 features and 9 targets for 10 samples"):
        store.write(0, [batch(4), batch(5)], [True] * 10)
    with pytest.raises(ValueError, match="features and 9 targets for 9 samples"):
        store.write(0, [batch(4), batch(5)], [True] * 9)
    store.write(0, [batch(4), batch(6)], [True] * 10)
    store.path(2).write_bytes(store.path(0).read_bytes())
    assert store.missing() == [1, 2]
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]


class Broken(Colours):
    """Some samples cannot be read."""

    broken = (0, 3, *range(10, 20))

    def __init__(self, num_samples):
        super().__init__(num_samples)
        self.shared_counter = multiprocessing.Value("q", 0)

    def __getitem__(self, index):
        return None if index in self.broken else super().__getitem__(index)

    @staticmethod
    def collate(samples):
        read = [sample for sample in samples if sample is not None]
        return FrameClip.collate(read) if read else None


def test_samples_that_cannot_be_read_are_named_and_left_out(tmp_path):
    with pytest.warns(UserWarning, match="12 of 23 samples could not be read"):
        features, _ = stored(tmp_path, Broken(23), cache_dtype="float32")
    read = [index for index in range(23) if index not in Broken.broken]
    batch = features.__getitems__(list(range(len(features))))
    assert batch.target.tolist() == [index % 3 for index in read]
    torch.testing.assert_close(batch.features, direct(Colours(23))[read], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(features.statistics()[0], batch.features.mean(0), atol=1e-6, rtol=1e-5)
    assert stored(tmp_path, Broken(23), cache_dtype="float32")[1] == 0
    nothing = StoredFeatures(features.store, [0, 3])  # of a process whose samples are all broken
    assert len(nothing) == 0
    assert [rows.shape for rows in nothing.own_rows()] == [(0, *batch.features.shape[1:])]
    assert nothing.__getitems__([]).target.dtype == torch.int64


def test_large_features_make_small_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "MAX_SHARD_BYTES", 1000)
    example = FeatureBatch(torch.zeros(1, 100), torch.zeros(1))
    assert FeatureStore.create(tmp_path / "a", example, 25, "bfloat16", {}).shard_samples == 4
    assert FeatureStore.create(tmp_path / "b", example, 25, "float32", {}).shard_samples == 2
    monkeypatch.setattr(feature_store, "MAX_SHARD_BYTES", 1)
    assert FeatureStore.create(tmp_path / "c", example, 25, "float32", {}).shard_samples == 1
    (tmp_path / "c" / "store.json").write_text("{}")
    with pytest.raises(ValueError, match="delete the folder"):
        FeatureStore(tmp_path / "c")


def test_shards_are_mapped_and_not_read(tmp_path):
    store = FeatureStore.create(tmp_path / "a", FeatureBatch(torch.zeros(1, 2**20), torch.zeros(1)), 10, "bfloat16", {})
    store.write(0, [FeatureBatch(torch.arange(10.0)[:, None].expand(10, 2**20), torch.arange(10.0))], [True] * 10)

    def resident():
        with Path("/proc/self/statm").open() as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    features = StoredFeatures(store, range(10))
    assert float(features.__getitems__([7]).features.mean()) == 7
    assert resident() - before < 16 * 2**20  # of 20 MiB, 2 are read and 4 made of them


def test_statistics_equal_those_of_all_features(tmp_path):
    features, _ = stored(tmp_path, Colours(23), cache_dtype="float32")
    rows = features.__getitems__(list(range(23))).features
    for found, wanted in zip(features.statistics(), (rows.mean(0), rows.std(0)), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_fit_from_a_folder_is_the_fit_from_memory(tmp_path):
    weights, seen = [], []
    for cache in (True, str(tmp_path / "features"), str(tmp_path / "features")):
        probe = Counting(backbone(), cache=cache, cache_dtype="float32", standardize=True, lrs=(1e-1, 1e-3))
        torch.manual_seed(0)
        probe.configure_model()
        module = EvaluationDataModule(train=Colours(48), holdout=0.25, batch_size=8)
        trainer(tmp_path, max_epochs=3).fit(probe, module)
        weights.append(probe.heads[0].weight)
        seen.append(probe.seen)
    assert seen == [48, 50, 0]  # from a folder: one more of each set, for its size
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(weights[1], weights[2])


def test_a_wrong_type_is_named(no_type_checks):
    with pytest.raises(ValueError, match="cache_dtype must be bfloat16 or float32, got 'int8'"):
        ColourProbe(backbone(), cache_dtype="int8")


def test_an_empty_set_is_named(tmp_path):
    with pytest.raises(ValueError, match="none of 0 can be read"):
        stored(tmp_path, Colours(0))


def test_features_of_another_precision_are_others(tmp_path):
    folders = []
    for precision in ("32-true", "bf16-mixed"):
        probe = Counting(backbone(), cache=tmp_path / "features")
        data = EvaluationDataModule(train=Colours(12), batch_size=4)
        run = trainer(tmp_path, max_epochs=1, limit_val_batches=0, precision=precision)
        run.fit(probe, data)
        assert probe.seen > 0
        folders.append(run.train_dataloader.dataset.store.folder)
    assert folders[0] != folders[1]
    assert stored(tmp_path / "features", Colours(12))[1] == 0  # float32, as without a trainer


def _store_a_share(rank, folder):
    feature_store.MAX_SHARD_SAMPLES = SHARD_SAMPLES
    alone, _ = stored(folder / f"alone_{rank}", Colours(35))
    expected = alone.statistics()
    with gloo(rank, folder):
        features, seen = stored(folder / "together", Colours(35))
        assert seen == (10 + 10 + 1, 10 + 5)[rank]
        assert features.indices.tolist() == [*range(rank, 35, 2), *([0] * rank)]
        for found, wanted in zip(features.statistics(), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        module = EvaluationDataModule(val=Colours(35), batch_size=4)
        probe = Counting(backbone(), cache=folder / "together")
        val = probe.store_all(module.in_order(module.val), training=False)
        assert val.indices.tolist() == [i for i in range(35) if i // 4 % 2 == rank]
    assert features.store.folder.name == alone.store.folder.name
    for path in alone.store.folder.glob("shard*"):
        assert path.read_bytes() == (features.store.folder / path.name).read_bytes()
    assert stored(folder / "together", Colours(35))[1] == 0


def test_two_processes_fill_the_folder_that_one_would(tmp_path):
    run_ranks(_store_a_share, tmp_path)

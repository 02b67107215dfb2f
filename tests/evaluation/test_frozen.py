import copy
import json
import math
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from probes import ColourProbe, Colours, backbone, trainer
from processes import gloo, run_python, run_ranks
from torch import nn
from torch.utils.data import DataLoader

from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.data.evaluation_samples import EpochPosition
from omnistream.evaluation import CachedFeatures, FeatureBatch, MetricValue
from omnistream.evaluation.frozen import _best, _mean
from omnistream.parallel import FSDP2Strategy  # noqa: F401 (registers the strategy)

HERE = Path(__file__).parent
BEGINNING = EpochPosition()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def data(**options):
    return EvaluationDataModule(**({"train": Colours(48), "test": Colours(9, 100), "batch_size": 8} | options))


def batch(count=6):
    return FrameClip.collate([Colours(count)[i] for i in range(count)])


class TestFreezing:
    def test_heads_learn_and_the_backbone_stays_bit_identical(self, tmp_path):
        model = backbone()
        before = copy.deepcopy(model.state_dict())
        probe = ColourProbe(model, lrs=(1e-1,))
        run = trainer(tmp_path, max_epochs=6)
        run.fit(probe, data())
        (found,) = run.test(probe, data(), verbose=False)
        assert found["test/accuracy"] == 1.0
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(p.requires_grad for p in model.parameters())

    def test_training_sees_the_features_of_evaluation(self):
        probe = ColourProbe(backbone())
        assert probe.backbone.rope_rescale is not None  # positions would be random in training mode
        probe.train()
        assert not any(module.training for module in probe.backbone.modules())
        features = [probe.extract(batch()).features for _ in range(2)]
        probe.eval()
        assert torch.equal(features[0], features[1])
        assert torch.equal(features[0], probe.extract(batch()).features)
        assert not features[0].requires_grad

    def test_a_backbone_that_someone_thawed_is_refused(self):
        probe = ColourProbe(backbone())
        probe.backbone.train()
        with pytest.raises(RuntimeError, match="evaluation mode"):
            probe.extract(batch())
        probe.eval()
        next(probe.backbone.parameters()).requires_grad_(True)
        with pytest.raises(RuntimeError, match="requires_grad"):
            probe.extract(batch())


class TestSweep:
    def test_every_head_trains_as_if_alone(self, tmp_path):
        settings = (1e-1, 1e-3, 1e-3)
        probe = ColourProbe(backbone(), lrs=settings)
        probe.configure_model()
        alone = copy.deepcopy(probe.heads[1])
        trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(probe, data())
        single = ColourProbe(backbone(), lrs=settings[1:2])
        single.heads.append(alone)
        single.head_metrics.append(nn.ModuleDict(single.metrics()))
        trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(single, data())
        torch.testing.assert_close(alone.weight, probe.heads[1].weight, atol=1e-7, rtol=0)
        assert not torch.equal(probe.heads[1].weight, probe.heads[2].weight)

    def test_equal_settings_stay_apart_by_their_index(self, tmp_path):
        probe = ColourProbe(backbone(), lrs=(1e-7, 1e-7, 1e-1), selection="test")
        run = trainer(tmp_path, max_epochs=6)
        run.fit(probe, data())
        (found,) = run.test(probe, data(), verbose=False)
        assert set(found) == {"test/accuracy", *(f"test/accuracy/{i}" for i in range(3))}
        assert found["test/accuracy"] == found["test/accuracy/2"] == 1.0
        assert probe.selected == 2

    def test_schedule_starts_after_one_step_and_ends_at_zero(self):
        probe = ColourProbe(backbone())
        assert [probe.schedule(i, 4) for i in range(5)] == pytest.approx(
            [0.5 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3, 4, 4)]
        )

    def test_settings_reach_the_optimiser_and_the_rate_ends_at_zero(self, tmp_path):
        class TwoValues(ColourProbe):
            def settings(self):
                return [{"lr": 1e-2, "weight_decay": 0.3}, {"lr": 2e-2, "weight_decay": 0.0}]

        probe, run = TwoValues(backbone(), selection="test", repetitions=2), trainer(tmp_path, max_epochs=2)
        run.fit(probe, data())
        groups = run.optimizers[0].param_groups
        assert [group["initial_lr"] for group in groups] == [1e-2, 1e-2, 2e-2, 2e-2]
        assert [group["weight_decay"] for group in groups] == [0.3, 0.3, 0.0, 0.0]
        assert [group["lr"] for group in groups] == [0.0] * 4
        assert run.global_step == 12

    def test_repetitions_differ_and_their_mean_is_reported(self, tmp_path):
        probe = ColourProbe(backbone(), lrs=(1e-7,), repetitions=3)
        run = trainer(tmp_path, max_epochs=1)
        run.fit(probe, data())
        (found,) = run.test(probe, data(), verbose=False)
        assert len(probe.heads) == 3
        with torch.no_grad():
            right = [
                (head(probe.extract(test).features).argmax(1) == test.label).float().mean()
                for head in probe.heads
                for test in [FrameClip.collate([Colours(9, 100)[i] for i in range(9)])]
            ]
        assert len(set(map(float, right))) > 1  # or nothing is shown
        assert found["test/accuracy"] == pytest.approx(float(torch.stack(right).mean()))


def values(*numbers, higher=True, stderr=None):
    return [{"m": MetricValue(value=number, higher_is_better=higher, stderr=stderr)} for number in numbers]


class TestSelection:
    def test_best_is_the_highest_or_lowest_number_and_never_nan(self):
        assert _best(values(0.1, 0.3, 0.2)) == 1
        assert _best(values(0.3, 0.1, 0.2, higher=False)) == 1
        assert _best(values(math.nan, 0.1, math.nan)) == 1
        assert _best(values(math.nan, 0.1, higher=False)) == 1
        assert _best(values(0.2, 0.2)) == 0

    def test_mean_over_repetitions(self):
        mean = _mean(values(0.1, 0.4, stderr=0.2))["m"]
        assert (mean.value, mean.stderr, mean.higher_is_better) == (0.25, 0.2, True)
        assert _mean(values(0.1, 0.4))["m"].stderr is None

    def test_the_last_validation_decides_and_not_the_test(self, tmp_path):
        class Misleading(Colours):
            """Other labels than in training: whoever learned is wrong."""

            def __getitem__(self, index):
                sample = super().__getitem__(index)
                sample.label = (sample.label + 1) % 3
                return sample

        probe = ColourProbe(backbone(), lrs=(1e-1, 1e-7))
        run = trainer(tmp_path, max_epochs=6)
        run.fit(probe, data(val=Colours(12, 50)))
        assert probe.selected == 0
        (found,) = run.test(probe, data(test=Misleading(9, 100)), verbose=False)
        assert found["test/accuracy"] == found["test/accuracy/0"] == 0.0
        assert found["test/accuracy/1"] > 0.0
        assert probe.test_results()["selection"] == {
            "on": "val", "metric": "accuracy", "index": 0, "setting": {"lr": 1e-1},
            "values": [0.0, found["test/accuracy/1"]],
        }  # fmt: skip

    def test_held_out_samples_are_not_trained_on(self):
        module = data(holdout=0.25)
        assert sorted([*module.train.indices, *module.val.indices]) == list(range(48))
        assert len(module.val) == 12
        assert data(holdout=0.25).val.indices == module.val.indices

    def test_without_a_choice_there_is_no_result(self, tmp_path):
        probe = ColourProbe(backbone(), lrs=(1e-1, 1e-7))
        run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
        run.fit(probe, data())
        with pytest.raises(ValueError, match=r"none of the 2 settings was chosen.*holdout.*selection to test"):
            run.test(probe, data(), verbose=False)

    def test_a_sanity_check_chooses_nothing(self, tmp_path):
        class Spy(ColourProbe):
            def on_train_start(self):
                super().on_train_start()
                self.before_training = self.selected

        probe = Spy(backbone(), lrs=(1e-1, 1e-7))
        trainer(tmp_path, max_epochs=1, num_sanity_val_steps=1).fit(probe, data(val=Colours(12, 50)))
        assert probe.before_training is None
        assert probe.selected is not None


class TestMixedPrecision:
    def test_heads_and_losses_are_in_float32_and_the_backbone_is_not(self, tmp_path):
        seen = {"backbone": set(), "head": set(), "loss": set()}

        class Spy(ColourProbe):
            def features(self, batch):
                seen["backbone"].add(torch.is_autocast_enabled("cpu"))
                return super().features(batch)

            def make_head(self, setting):
                head = super().make_head(setting)
                head.register_forward_hook(lambda *_: seen["head"].add(torch.is_autocast_enabled("cpu")))
                return head

            def loss(self, prediction, target):
                seen["loss"].add(torch.is_autocast_enabled("cpu"))
                return super().loss(prediction, target)

        run = trainer(tmp_path, max_epochs=1, precision="bf16-mixed")
        probe = Spy(backbone())
        run.fit(probe, data(val=Colours(6)))
        assert seen == {"backbone": {True}, "head": {False}, "loss": {False}}
        seen["head"].clear()
        run.test(probe, data(), verbose=False)
        assert seen["head"] == {False}

    def test_predictions_are_those_of_float32(self):
        probe = ColourProbe(backbone())
        probe.configure_model()
        inputs = torch.randn(4, 64)
        with torch.autocast("cpu", torch.bfloat16):
            found = probe.prediction(probe.heads[0], inputs, None)
            assert probe.heads[0](inputs).dtype == torch.bfloat16  # the head itself would
        assert torch.equal(found, probe.heads[0](inputs))


class TestCache:
    def test_cached_features_give_the_same_heads(self, tmp_path):
        class InOrder(ColourProbe):
            def cached_loader(self, loader, batch_size, *, training, start):
                return self.extract_all(loader, training=training).loader(batch_size)

        weights = []
        for cache in (False, True):
            probe = InOrder(backbone(), cache=cache)
            probe.configure_model()
            nn.init.ones_(probe.heads[0].weight)
            nn.init.zeros_(probe.heads[0].bias)
            module = data(eval_batch_size=5)
            if not cache:
                loader = DataLoader(module.train, 8, collate_fn=FrameClip.collate)
                module.train_dataloader = lambda loader=loader: loader
            trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(probe, module)
            weights.append(probe.heads[0].weight)
        torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=0)

    def test_the_backbone_runs_once_per_sample(self, tmp_path):
        class Counting(ColourProbe):
            seen = 0

            def features(self, batch):
                self.seen += len(batch.images)
                return super().features(batch)

        probe = Counting(backbone(), cache=True)
        trainer(tmp_path, max_epochs=4).fit(probe, data(val=Colours(6)))
        assert probe.seen == 48 + 6

    def test_statistics_are_of_the_training_set_and_survive_a_checkpoint(self, tmp_path):
        probe = ColourProbe(backbone(), cache=True, standardize=True)
        run = trainer(tmp_path, max_epochs=1)
        run.fit(probe, data())
        features = torch.cat([probe.extract(FrameClip.collate([Colours(48)[i]])).features for i in range(48)])
        standardized = probe._inputs(features)
        torch.testing.assert_close(standardized.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
        torch.testing.assert_close(standardized.std(0), torch.ones(64), atol=1e-4, rtol=0)
        run.save_checkpoint(tmp_path / "probe.ckpt")
        again = ColourProbe(backbone(), cache=True, standardize=True)
        run.test(again, data(), ckpt_path=tmp_path / "probe.ckpt", verbose=False)
        assert torch.equal(again._inputs(features), standardized)
        with pytest.raises(ValueError, match="set cache to true"):
            ColourProbe(backbone(), standardize=True)

    def test_features_are_those_of_the_precision_of_the_trainer(self, tmp_path):
        probe = ColourProbe(backbone(), cache=True)
        run = trainer(tmp_path, max_epochs=1, precision="bf16-mixed", limit_val_batches=0)
        run.fit(probe, data())
        features = run.train_dataloader.dataset.features[:6]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(features, probe.extract(batch()).features, atol=1e-6, rtol=0)
        assert not torch.allclose(features, probe.extract(batch()).features, atol=1e-4, rtol=0)

    def test_an_empty_loader_is_named(self):
        with pytest.raises(ValueError, match="the loader is empty"):
            CachedFeatures([])

    def test_order_depends_on_the_seed_alone(self):
        features = CachedFeatures([FeatureBatch(torch.arange(20.0)[:, None], torch.arange(20))])

        def order(seed, epochs=(0, 1), start=BEGINNING):
            loader, found = features.loader(7, shuffle=True, seed=seed, start=start), []
            for epoch in epochs:
                loader.sampler.set_epoch(epoch)
                found.append([part.target.tolist() for part in loader])
                assert len(loader) == 3
            return found

        assert order(0) == order(0) != order(1)
        first, second = order(0)
        assert first != second
        assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(20))
        assert order(0, (1, 0)) == [second, first]  # and on no earlier epoch
        assert order(0, start=EpochPosition(0, 2)) == [first[2:], second]
        assert order(0, start=EpochPosition(1, 1)) == [second[1:], second[1:]]


class Recorder(ColourProbe):
    """Records the features of every step, and saves a checkpoint at one."""

    save_at, path = 0, None

    def training_step(self, batch, batch_idx):
        self.seen.append(self.extract(batch).features)
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.path)


def check_cached_training_goes_on(folder, cache, step, strategy="auto"):
    def run(path=None):
        torch.manual_seed(0)
        probe = Recorder(backbone(), cache=True if cache == "memory" else folder / "features", cache_dtype="float32")
        probe.seen, probe.save_at, probe.path = [], step, folder / "a.ckpt"
        options = {"max_epochs": 3, "limit_val_batches": 0, "strategy": strategy, "devices": 1}
        trainer(folder, **options).fit(probe, data(train=Colours(10), batch_size=4), ckpt_path=path)
        return probe.seen, probe.heads[0].weight.detach()

    whole, weight = run()
    assert [len(part) for part in whole] == [4, 4, 2] * 3
    assert not torch.equal(torch.cat(whole[:3]), torch.cat(whole[3:6]))
    rest, end = run(folder / "a.ckpt")
    assert len(rest) == 9 - step
    assert all(torch.equal(*pair) for pair in zip(rest, whole[step:], strict=True))
    assert torch.equal(end, weight)


@pytest.mark.parametrize("cache", ["memory", "folder"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_cached_run_goes_on_with_the_samples_that_are_left(tmp_path, cache, step):
    check_cached_training_goes_on(tmp_path, cache, step)


def _cached_and_sharded(rank, folder):
    for cache, step in (("memory", 4), ("folder", 3)):
        check_cached_training_goes_on(folder, cache, step, "fsdp2")


@pytest.mark.slow
def test_a_cached_run_under_fsdp2_does_as_well(tmp_path):
    """In a process of its own: the process group would stay in this one."""
    run_ranks(_cached_and_sharded, tmp_path, count=1)


def test_cached_samples_come_in_the_order_of_images(tmp_path):
    """In one process, so that a cache changes nothing but the time."""
    seen = []
    for cache in (False, True):
        probe = Recorder(backbone(), cache=cache)
        probe.seen = []
        trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(probe, data(train=Colours(10), batch_size=4))
        seen.append(torch.cat(probe.seen))
    torch.testing.assert_close(*seen, atol=1e-6, rtol=1e-5)


class TestCheckpoint:
    def test_holds_the_heads_alone_and_goes_on(self, tmp_path):
        probe = ColourProbe(backbone(), lrs=(1e-1, 1e-7))
        run = trainer(tmp_path, max_epochs=4)
        run.fit(probe, data(val=Colours(12, 50)))
        run.save_checkpoint(tmp_path / "probe.ckpt")
        state = torch.load(tmp_path / "probe.ckpt", weights_only=True)["state_dict"]
        assert set(state) == {f"heads.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
        again = ColourProbe(backbone(), lrs=(1e-1, 1e-7))
        (found,) = run.test(again, data(), ckpt_path=tmp_path / "probe.ckpt", verbose=False)
        assert again.selected == 0
        assert found["test/accuracy"] == run.test(probe, data(), verbose=False)[0]["test/accuracy"]

    def test_of_another_backbone_is_refused(self, tmp_path):
        run = trainer(tmp_path, max_epochs=1)
        run.fit(ColourProbe(backbone()), data())
        run.save_checkpoint(tmp_path / "probe.ckpt")
        with pytest.raises(ValueError, match="another backbone"):
            run.test(ColourProbe(backbone(seed=1)), data(), ckpt_path=tmp_path / "probe.ckpt", verbose=False)

    def test_of_no_probe_is_refused(self):
        with pytest.raises(ValueError, match="not a checkpoint of a probe"):
            ColourProbe(backbone()).on_load_checkpoint({"state_dict": {}})


def _evaluate_a_share(rank, folder, shares, expected):
    with gloo(rank, folder):
        probe = ColourProbe(backbone(), lrs=(1e-1, 1e-7)).eval()
        torch.manual_seed(0)
        probe.configure_model()
        samples = Colours(9)
        for index in shares[rank]:
            probe.test_step(FrameClip.collate([samples[index]]), 0)
        assert [found["accuracy"] for found in probe._computed()] == expected


def test_two_processes_on_an_odd_number_of_samples_are_one(tmp_path):
    probe = ColourProbe(backbone(), lrs=(1e-1, 1e-7)).eval()
    torch.manual_seed(0)
    probe.configure_model()
    with torch.no_grad():
        for index in range(9):
            probe.test_step(FrameClip.collate([Colours(9)[index]]), 0)
    expected = [found["accuracy"] for found in probe._computed()]
    assert expected[0] != expected[1]  # or nothing is shown
    shares = (range(0, 9, 2), range(1, 9, 2))
    run_ranks(_evaluate_a_share, str(tmp_path), shares, expected)


def _standardize_a_share(rank, folder, expected):
    with gloo(rank, folder):
        probe = ColourProbe(backbone(), cache=True, standardize=True)
        module = data(train=Colours(9))
        module.trainer = SimpleNamespace(lightning_module=probe)
        probe._trainer = SimpleNamespace(train_dataloader=module.train_dataloader())
        assert len(probe._trainer.train_dataloader.dataset) == 5  # the second process repeats a sample
        probe.on_train_start()
        for found, wanted in zip(probe._statistics, expected, strict=True):
            assert found.dtype == wanted.dtype
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_two_processes_standardize_by_all_samples_each_once(tmp_path):
    probe = ColourProbe(backbone(), cache=True, standardize=True)
    rows = torch.cat([probe.extract(FrameClip.collate([Colours(9)[index]])).features for index in range(9)])
    expected = rows.mean(0), rows.std(0)
    assert (rows[::2].mean(0) - expected[0]).abs().max() > 1e-3  # or a share's own would do
    run_ranks(_standardize_a_share, str(tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "folder"])
def test_a_process_without_cached_validation_samples_takes_part(tmp_path, cache):
    """Three samples are one batch, so the second process has none."""
    for processes in ("1", "2"):
        run_python([str(HERE / "cached_runs.py"), str(tmp_path), processes, cache], cwd=HERE, timeout=120)
    one, two = (json.loads((tmp_path / f"metrics_{processes}.json").read_text()) for processes in (1, 2))
    assert one["val/accuracy"] == two["val/accuracy"]


def _cache_nothing(rank, folder):
    with gloo(rank, folder):
        with pytest.raises(ValueError, match="the loader is empty"):
            CachedFeatures([])
        batches = [FeatureBatch(torch.ones(3, 2, 4), torch.zeros(3, dtype=torch.int64))] if rank else []
        share = CachedFeatures(batches)
        assert (share.features.shape, share.target.shape) == ((3 * rank, 2, 4), (3 * rank,))
        assert share.target.dtype == torch.int64
        assert share.statistics()[0].tolist() == [1.0] * 4


@pytest.mark.slow
def test_broken_samples_of_one_share_neither_crash_nor_hang(tmp_path):
    """Files are replaced, a share that is shorter repeats samples, and one without any is named in all processes."""
    with pytest.raises(AssertionError, match="at the end: no sample of a training batch could be read, and the other"):
        run_python([str(HERE / "broken_share_runs.py"), str(tmp_path)], cwd=HERE)
    for rank in range(2):
        happened = json.loads((tmp_path / f"seen_{rank}.json").read_text())
        for cache in ("memory", "folder"):
            message = happened.pop(f"none-{cache}")
            assert message.startswith("none of the training samples of process 1 could be read, so it has nothing to")
        assert set(happened) == {"replaced-images", "replaced-memory", "replaced-folder", "some-memory", "some-folder"}
        assert all(sizes == [2] * 6 for sizes in happened.values()), happened


def _train_on_shares(rank, folder):
    with gloo(rank, folder):
        size = (5, 3)[rank]
        share = CachedFeatures([FeatureBatch(torch.arange(float(size))[:, None], torch.arange(size))])
        loader = share.loader(2, shuffle=True)
        found = [part.target.tolist() for part in loader]
        assert [len(part) for part in found] == [2, 2, 1]
        assert set(chain(*found)) == set(range(size))
        empty = CachedFeatures([FeatureBatch(torch.ones(3, 2), torch.zeros(3))] if rank else [])
        with pytest.raises(ValueError, match=r"samples of process 0 could be read.* in fewer processes than 2"):
            empty.loader(2, shuffle=True)
        assert [None if batch is None else len(batch.target) for batch in empty.loader(2)] == [[None], [2, 1]][rank]


def test_shares_of_training_features_have_equally_many_batches(tmp_path):
    run_ranks(_train_on_shares, str(tmp_path))


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_without_a_sample_is_no_result(tmp_path, stage):
    class Nothing(Colours):
        def __getitem__(self, index):
            return None

    module, run = data(test=Nothing(4), val=Nothing(4)), trainer(tmp_path)
    with pytest.raises(ValueError, match="none of the samples could be evaluated: all of their files are broken"):
        getattr(run, stage)(ColourProbe(backbone()), module, verbose=False)


def test_only_a_data_set_without_samples_is_refused_and_not_an_empty_share(tmp_path):
    run_ranks(_cache_nothing, str(tmp_path))


def test_statistics_of_one_process_and_of_a_far_mean():
    features = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)) + 1000
    mean, std = CachedFeatures([FeatureBatch(features, torch.zeros(50))]).statistics()
    assert torch.equal(mean, features.flatten(0, 1).mean(0))
    assert torch.equal(std, features.flatten(0, 1).std(0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="selection must be val or test"):
        ColourProbe(backbone(), repetitions=0)
    for options, message in (
        ({"holdout": 0.5, "val": Colours(3)}, "give train and no val"),
        ({"holdout": 0.001}, "leaves nothing"),
        ({"batch_size": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            data(**options)
    with pytest.raises(ValueError, match=r"no test set; give one as data\.test"):
        EvaluationDataModule(train=Colours(3)).test_dataloader()

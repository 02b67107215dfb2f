import pytest
import torch
from lightning import LightningModule, Trainer
from processes import run_ranks
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from omnistream import distributed
from omnistream.data import EvaluationDataModule, FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.errors import TooManyBrokenFilesError
from omnistream.data.evaluation_samples import EvaluationSamples, KeyedSubset, source_of
from omnistream.data.media.errors import ImageReadError
from omnistream.parallel import FSDP2Strategy


class Files(FileDataset):
    """Twelve samples that hold their index and epoch; some are broken."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, broken=(), limit=0.5, length=12):
        super().__init__(0, BrokenFiles(limit))
        self.broken, self.length = broken, length

    def __len__(self):
        return self.length

    def _read(self, key):
        if key.index in self.broken:
            raise ImageReadError(f"{key.index}.jpg", "damaged")
        images = torch.full((1, 3, 2, 2), key.epoch, dtype=torch.uint8)
        return FrameClip(images=images, label=torch.tensor(key.index), name="", seed=torch.tensor(0))


def labels(loader):
    return [None if batch is None else batch.label.tolist() for batch in loader]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_files_are_left_out_and_counted(num_workers):
    data = EvaluationDataModule(test=Files(broken=(1, 4, 5, 6, 7)), batch_size=4, num_workers=num_workers)
    loader = data.test_dataloader()
    assert labels(loader) == [[0, 2, 3], None, [8, 9, 10, 11]]
    assert loader.dataset.num_skipped == 5


def test_too_many_broken_files_stop_the_evaluation():
    loader = EvaluationDataModule(test=Files(broken=(1, 2), limit=1), batch_size=4).test_dataloader()
    with pytest.raises(TooManyBrokenFilesError, match=r"2 of 12 files are broken, 1 are allowed: 1.jpg \(damaged\)"):
        list(loader)


def test_held_out_samples_are_left_out_as_well():
    data = EvaluationDataModule(Files(broken=tuple(range(6)), limit=0.9), holdout=0.5, batch_size=12)
    (found,) = labels(data.val_dataloader())
    assert sorted(found) == sorted(set(data.val.indices) - set(range(6)))


def test_held_out_samples_have_the_transform_of_the_test_set():
    train, test = Files(), Files()
    train.transform, test.transform = "augmentation", "centre"
    for whole in (train, KeyedSubset(train, range(12))):
        data = EvaluationDataModule(whole, test, holdout=0.25, batch_size=4)
        assert [source_of(part).transform for part in (data.train, data.val)] == ["augmentation", "centre"]
        assert source_of(data.val).broken_files is train.broken_files
        assert sorted([*data.train.indices, *data.val.indices]) == list(range(12))
    data = EvaluationDataModule(train, holdout=0.25)
    assert source_of(data.val).transform is None


def test_a_sample_is_looked_up_through_all_subsets():
    nested = KeyedSubset(KeyedSubset(Files(), [3, 5, 7, 9]), [2, 1])
    assert [int(EvaluationSamples(nested)[i].label) for i in range(2)] == [7, 5]
    assert [int(sample.label) for sample in nested.__getitems__([1, 0])] == [5, 7]


def test_training_in_epochs_knows_the_epoch():
    loader = EvaluationDataModule(Files(), batch_size=12, holdout=0.25).train_dataloader()
    orders = []
    for epoch in (0, 3):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        assert batch.images.unique().tolist() == [epoch]
        orders.append(batch.label.tolist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


class Recorder(LightningModule):
    """Records the epoch and the samples of every batch; saves a checkpoint at a step."""

    def __init__(self, save_at, path):
        super().__init__()
        self.layer, self.seen, self.save_at, self.path = torch.nn.Linear(1, 1), [], save_at, path

    def configure_model(self):
        """Shard for FSDP2, which restores a checkpoint after the loader was made."""
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        self.seen.append((int(batch.images[0, 0, 0, 0, 0]), batch_idx, batch.label.tolist()))
        return self.layer(torch.ones(1)).sum()

    def on_train_batch_end(self, *_):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches == 9  # makes the loader before the trainer knows its epoch
        return torch.optim.AdamW(self.parameters(), 0.1)


def check_the_samples_that_are_left(folder, step, strategy, num_workers):
    def run(path=None):
        data, module = (
            EvaluationDataModule(Files(), batch_size=4, num_workers=num_workers),
            Recorder(step, folder / "a.ckpt"),
        )
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            strategy=strategy,
            max_epochs=3,
            enable_checkpointing=False,
            default_root_dir=folder,
            **quiet,
        )
        trainer.fit(module, data, ckpt_path=path)
        return module.seen

    whole = run()
    assert [epoch for epoch, _, _ in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(sorted(n for _, _, part in whole[i : i + 3] for n in part) == list(range(12)) for i in (0, 3, 6))
    assert run(folder / "a.ckpt") == whole[step:]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_training_in_epochs_goes_on_with_the_samples_that_are_left(tmp_path, step, num_workers):
    check_the_samples_that_are_left(tmp_path, step, "auto", num_workers)


def _sharded(rank, folder):
    for step, num_workers in ((1, 0), (4, 1), (6, 0)):
        check_the_samples_that_are_left(folder, step, "fsdp2", num_workers)


def test_sharded_training_in_epochs_does_as_well(tmp_path):
    """In a process of its own: the process group would stay in this one."""
    run_ranks(_sharded, tmp_path, count=1)


def test_training_in_epochs_goes_on_in_every_process(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        data = EvaluationDataModule(Files(), batch_size=2)
        data.load_state_dict({"batches_seen": 7, "position": (2, 1)})
        loader = data.train_dataloader()
        fresh = EvaluationDataModule(Files(), batch_size=2).train_dataloader()
        fresh.sampler.set_epoch(2)
        assert labels(loader) == labels(fresh)[1:]
        assert len(loader) == 3
        for one in (loader, fresh):
            one.sampler.set_epoch(3)
        assert labels(loader) == labels(fresh)


def test_training_without_end_takes_every_sample_once_per_pass():
    data = EvaluationDataModule(Files(), batch_size=5, endless=True)
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(12), strict=False)]
    assert {len(batch.label) for batch in batches} == {5}
    seen = torch.cat([batch.label for batch in batches]).view(5, 12)
    assert all(sorted(one) == list(range(12)) for one in seen.tolist())
    assert seen[0].tolist() != seen[1].tolist()
    assert torch.cat([batch.images[:, 0, 0, 0, 0] for batch in batches]).tolist() == [i // 12 for i in range(60)]


def test_training_without_end_goes_on_where_it_was():
    def some(data, count):
        return [batch.label.tolist() for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]

    whole = some(EvaluationDataModule(Files(), batch_size=5, endless=True), 9)
    resumed = EvaluationDataModule(Files(), batch_size=5, endless=True)
    resumed.load_state_dict({"batches_seen": 4})
    assert resumed.state_dict()["batches_seen"] == 4
    assert some(resumed, 5) == whole[4:]


def test_reference_samples_are_the_training_samples_in_order():
    loader = EvaluationDataModule(Files(broken=(2,)), batch_size=8).reference_dataloader()
    assert isinstance(loader, DataLoader)
    assert labels(loader) == [[0, 1, 3, 4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ValueError, match="there is no train set"):
        EvaluationDataModule(test=Files()).reference_dataloader()

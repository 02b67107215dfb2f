"""The data module of evaluations: which samples each process gets."""

from types import SimpleNamespace

import pytest
import torch
from action_files import write_kinetics
from lightning import LightningModule
from nyu_files import write_split_folder
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import v2

from omnistream import distributed
from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.data.images import ImageNetProbing, NYUv2DataModule
from omnistream.data.sampling import sample_key
from omnistream.data.videos import KineticsData
from omnistream.data.world import WorldActions


class Numbers(Dataset):
    """Clips whose label is their index."""

    def __init__(self, num_samples):
        self.num_samples = num_samples

    def __len__(self):
        return self.num_samples

    def __getitem__(self, index):
        images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        return FrameClip(images=images, label=torch.tensor(index), name=str(index), seed=torch.tensor(index))


def labels(loader):
    return [[] if batch is None else batch.label.tolist() for batch in loader]


def flat(batches):
    return [label for batch in batches for label in batch]


def of_processes(monkeypatch, make, count=2):
    """The batches of every process."""
    monkeypatch.setattr(distributed, "world_size", lambda: count)
    found = []
    for rank in range(count):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.append(labels(make()))
    return found


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader"])
def test_two_processes_see_every_sample_once(monkeypatch, loader):
    def make():
        return getattr(EvaluationDataModule(val=Numbers(7), test=Numbers(7), eval_batch_size=2), loader)()

    assert labels(make()) == [[0, 1], [2, 3], [4, 5], [6]]
    first, second = of_processes(monkeypatch, make)
    assert first == [[0, 1], [4, 5]]
    assert second == [[2, 3], [6]]


def test_training_is_shuffled_anew_in_every_epoch_and_shared_evenly(monkeypatch):
    module = EvaluationDataModule(train=Numbers(9), batch_size=4, seed=3)
    loader, epochs = module.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(flat(labels(loader)))
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(9))
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(9))
    assert flat(labels(EvaluationDataModule(train=Numbers(9), seed=4).train_dataloader())) != epochs[0]
    first, second = of_processes(
        monkeypatch, lambda: EvaluationDataModule(train=Numbers(9), batch_size=4).train_dataloader()
    )
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [4, 1]
    assert {*flat(first), *flat(second)} == set(range(9))


def test_held_out_samples_come_from_the_training_set():
    module = EvaluationDataModule(train=Numbers(20), holdout=0.25, batch_size=4, seed=1)
    held = flat(labels(module.val_dataloader()))
    assert len(held) == 5
    assert sorted([*held, *flat(labels(module.train_dataloader()))]) == list(range(20))
    assert held != flat(labels(EvaluationDataModule(train=Numbers(20), holdout=0.25, seed=2).val_dataloader()))


class Epochs(Numbers):
    """Labels tell the epoch in which a sample was asked for."""

    takes_keys = True

    def __getitem__(self, key):
        epoch, index = sample_key(key)
        return super().__getitem__(100 * epoch + index)


@pytest.mark.parametrize("holdout", [0.0, 0.25])
def test_training_samples_know_their_epoch(holdout):
    module = EvaluationDataModule(train=Epochs(8), holdout=holdout, batch_size=2)
    loader = module.train_dataloader()
    held = flat(labels(module.val_dataloader())) if holdout else []
    for epoch in (0, 3):
        loader.sampler.set_epoch(epoch)
        assert sorted(flat(labels(loader))) == [100 * epoch + i for i in range(8) if i not in held]


class Caching(LightningModule):
    """Asks for loaders over features."""

    cache = True

    def cached_loader(self, loader, batch_size, *, training, start=None):
        return loader


def _imagenet(root, augment):
    for split in ("train", "val"):
        for label in ("n01440764", "n01443537"):
            folder = root / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(folder / "a.JPEG")
    return ImageNetProbing(root, image_size=16, augment=augment, batch_size=2, num_workers=0, holdout=0.5)


def _kinetics(root, augment):
    write_kinetics(root)
    return KineticsData(root, num_frames=2, stride=1, size=32, augment=augment)


def _world(root, augment):
    transform = v2.RandomHorizontalFlip() if augment else v2.Resize(16)
    return EvaluationDataModule(train=WorldActions(4, size=(32, 32), num_frames=4, transform=transform), batch_size=2)


def _nyuv2(root, augment):
    write_split_folder(root)
    return NYUv2DataModule(root, crop_size=(32, 32))


@pytest.mark.parametrize("make", [_imagenet, _kinetics, _world, _nyuv2])
def test_features_of_random_augmentation_are_not_cached(tmp_path, make):
    for augment in (True, False) if make is not _nyuv2 else (True,):
        data = make(tmp_path / str(augment), augment)
        data.trainer = SimpleNamespace(lightning_module=Caching())
        data.setup("fit")
        if augment:
            with pytest.raises(ValueError, match="randomly augmented training data cannot be cached"):
                data.train_dataloader()
        else:
            state = torch.get_rng_state()
            assert len(data.train_dataloader()) > 0
            assert torch.equal(torch.get_rng_state(), state)

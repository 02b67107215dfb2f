import itertools

import pytest
import torch
from torch.utils.data import Dataset

from omnistream.data import FrameClip, MultiTaskDataModule, Source
from omnistream.data.sampling import EvaluationSampler, sample_key


class Numbers(Dataset):
    """Clips whose label is their index."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        epoch, index = sample_key(key)
        images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        return FrameClip(images=images, label=torch.tensor(100 * epoch + index), name="", seed=torch.tensor(0))


def make(**options):
    sources = {
        "ssl/image": Source(Numbers(5), None, 2),
        "ssl/video": Source(Numbers(4), Numbers(3), 1),
        "geometry": Source(Numbers(6), Numbers(1), 3),
    }
    return MultiTaskDataModule(sources | options)


def steps(data, count):
    batches = [batch for batch, _, _ in itertools.islice(iter(data.train_dataloader()), count)]
    parts = [(b["ssl"]["image"], b["ssl"]["video"], b["geometry"]) for b in batches]
    return [tuple(clip.label.tolist() for clip in clips) for clips in parts]


def test_groups_streams_by_task_and_never_ends():
    seen = steps(make(), 20)
    assert len(seen) == 20
    assert max(seen[-1][1]) > 100  # the shortest set is in a later epoch


class Plain(Dataset):
    """A data set without `collate`."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        return self.samples[sample_key(key)[1]]


def test_data_sets_need_no_collate_of_their_own():
    numbers = Numbers(4)
    data = MultiTaskDataModule({"a": Source(Plain([numbers[i] for i in range(4)]), None, 4)})
    batch, _, _ = next(iter(data.train_dataloader()))
    assert type(batch["a"]) is FrameClip
    assert sorted(batch["a"].label.tolist()) == [0, 1, 2, 3]


class Marked(FrameClip):
    """Another kind of clip."""


def test_samples_of_different_kinds_are_named():
    clip = Numbers(1)[0]
    data = MultiTaskDataModule({"a": Source(Plain([clip, Marked(**vars(clip))]), None, 2)})
    with pytest.raises(TypeError, match=r"samples must be of one class derived from Batch, got FrameClip, Marked$"):
        next(iter(data.train_dataloader()))


def test_continues_from_a_saved_position():
    whole = steps(make(), 7)
    data = make()
    data.load_state_dict({"batches_seen": 3})
    assert steps(data, 4) == whole[3:]
    assert data.state_dict() == {"batches_seen": 3}


def test_sources_of_equal_length_are_not_in_step():
    data = MultiTaskDataModule({"a": Source(Numbers(50), None, 50), "b": Source(Numbers(50), None, 50)})
    batch, _, _ = next(iter(data.train_dataloader()))
    assert batch["a"].label.tolist() != batch["b"].label.tolist()


def test_validation_reads_every_set_once_in_order():
    batches = [batch for batch, _, _ in iter(make().val_dataloader())]
    assert [b["ssl"]["video"].label.tolist() for b in batches] == [[0], [1], [2]]
    assert [b["ssl"]["video"].index for b in batches] == [[0], [1], [2]]
    assert [None if b["geometry"] is None else b["geometry"].label.tolist() for b in batches] == [[0], None, None]


def test_null_sources_are_left_out():
    data = make(**{"ssl/video": None})
    assert set(data.sources) == {"ssl/image", "geometry"}
    with pytest.raises(ValueError, match="every data source is null"):
        MultiTaskDataModule({"a": None})
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Source(Numbers(1), None, 0)


@pytest.mark.parametrize("num_samples", range(12))
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_processes_share_the_batches_of_one(num_samples, batch_size, num_replicas):
    """No sample twice, none left out, the batches of a single process, and equally many steps everywhere."""
    (alone,) = [list(EvaluationSampler(num_samples, batch_size))]
    assert [index for batch in alone for index in batch] == list(range(num_samples))
    shares = [list(EvaluationSampler(num_samples, batch_size, rank, num_replicas)) for rank in range(num_replicas)]
    assert len({len(share) for share in shares}) == 1
    dealt = [batch for step in zip(*shares, strict=True) for batch in step if batch]
    assert dealt == alone
    assert all(len(EvaluationSampler(num_samples, batch_size, 0, num_replicas)) == len(share) for share in shares)


def test_a_sampler_needs_a_batch_size():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        EvaluationSampler(3, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_process_without_samples_gets_none(monkeypatch, num_workers):
    monkeypatch.setattr("omnistream.distributed.rank", lambda: 1)
    monkeypatch.setattr("omnistream.distributed.world_size", lambda: 2)
    data = MultiTaskDataModule(
        {"a": Source(Numbers(2), Numbers(1), 1), "b": Source(Numbers(2), Numbers(3), 1)}, num_workers=num_workers
    )
    batches = [batch for batch, _, _ in iter(data.val_dataloader())]
    assert [batch["a"] for batch in batches] == [None, None]
    assert [batch["b"] and batch["b"].label.tolist() for batch in batches] == [[1], None]
    first, _ = data.predict_dataloader()
    assert list(first) == [{"a": None}]


class Phase:
    """The attributes of a trainer that the data module uses."""

    lightning_module = None

    def __init__(self, training):
        self.training = training


def test_only_training_batches_move_the_position():
    data = make()
    for training in (True, False, True):
        data.trainer = Phase(training)
        assert data.on_after_batch_transfer("batch", 0) == "batch"
    assert data.state_dict() == {"batches_seen": 2}

import itertools
import pickle

import numpy as np
import pytest
import torch

from omnistream.data.batch import FrameClip
from omnistream.data.sampling import (
    BatchPlace,
    EndlessBatchSampler,
    PlacedKey,
    SampleKey,
    batch_place,
    sample_rng,
    sample_seed,
)


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_every_epoch_visits_every_sample_once_in_a_new_order():
    keys = [key for batch in take(EndlessBatchSampler(10, 5), 4) for key in batch]
    first, second = keys[:10], keys[10:]
    assert sorted(k.index for k in first) == list(range(10))
    assert sorted(k.index for k in second) == list(range(10))
    assert {k.epoch for k in first} == {0}
    assert {k.epoch for k in second} == {1}
    assert [k.index for k in first] != [k.index for k in second]


def test_a_batch_may_span_two_epochs():
    batches = take(EndlessBatchSampler(3, 2, shuffle=False), 3)
    assert batches[1] == [SampleKey(0, 2), SampleKey(1, 0)]


def test_starts_anywhere():
    whole = take(EndlessBatchSampler(7, 3, seed=5), 9)
    assert take(EndlessBatchSampler(7, 3, seed=5, start_batch=4), 5) == whole[4:]


def test_ranks_share_each_global_batch():
    whole = take(EndlessBatchSampler(11, 6, seed=1), 5)
    parts = [take(EndlessBatchSampler(11, 2, seed=1, rank=r, num_replicas=3), 5) for r in range(3)]
    assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == whole


def test_keys_know_their_place_in_the_global_batch():
    parts = [take(EndlessBatchSampler(11, 2, seed=1, rank=r, num_replicas=3, start_batch=4), 2) for r in range(3)]
    places = [key.place for step in zip(*parts, strict=True) for batch in step for key in batch]
    assert places == [BatchPlace(4 + i // 6, i % 6, 6) for i in range(12)]
    assert batch_place(parts[1][0][1], 11) == BatchPlace(4, 3, 6)


def test_a_key_without_a_place_is_placed_among_its_neighbours():
    assert batch_place(3, 8) == batch_place(SampleKey(0, 3), 8) == BatchPlace(0, 3, 8)
    assert batch_place(SampleKey(2, 300), 301) == BatchPlace(2 * 301 + 256, 44, 45)


def test_a_placed_key_can_be_pickled_and_equals_the_plain_one():
    key = PlacedKey(1, 2, BatchPlace(3, 4, 5))
    again = pickle.loads(pickle.dumps(key))
    assert again == key == SampleKey(1, 2)
    assert again.place == BatchPlace(3, 4, 5)


def test_random_numbers_depend_on_seed_epoch_index_and_salt_only():
    def draw(*args):
        return sample_rng(*args).integers(2**62)

    reference = draw(1, SampleKey(2, 3), 4)
    assert draw(1, SampleKey(2, 3), 4) == reference
    others = [draw(0, SampleKey(2, 3), 4), draw(1, SampleKey(1, 3), 4), draw(1, SampleKey(2, 4), 4)]
    assert reference not in [*others, draw(1, SampleKey(2, 3), 5)]
    assert draw(1, 3) == draw(1, SampleKey(0, 3))
    assert sample_seed(0, 1).dtype == torch.int64


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_an_empty_data_set_or_batch_is_refused(numbers):
    with pytest.raises(ValueError, match="at least one sample"):
        EndlessBatchSampler(*numbers)


def clip(size: int) -> FrameClip:
    images = torch.from_numpy(np.zeros((1, 3, size, size), dtype=np.uint8))
    return FrameClip(images=images, label=torch.tensor(1), name="x", seed=torch.tensor(2))


def test_collate_stacks_tensors_and_lists_the_rest():
    batch = FrameClip.collate([clip(4), clip(4)])
    assert batch.images.shape == (2, 1, 3, 4, 4)
    assert batch.name == ["x", "x"]
    assert batch.to(torch.float32).images.dtype == torch.float32
    with pytest.raises(ValueError, match=r"FrameClip\.images: samples of one batch differ in shape"):
        FrameClip.collate([clip(4), clip(8)])
    with pytest.raises(ValueError, match="at least one sample"):
        FrameClip.collate([])

import logging

import pytest

from omnistream.data.broken_files import BrokenFiles, read_or_replace
from omnistream.data.errors import TooManyBrokenFilesError
from omnistream.data.media import ImageReadError
from omnistream.data.sampling import SampleKey


def broken(name):
    return ImageReadError(name, "damaged")


def test_counts_files_and_logs_each_once(caplog):
    files = BrokenFiles(limit=5)
    with caplog.at_level(logging.WARNING):
        for name in ("a.jpg", "b.jpg", "a.jpg"):
            files.add(broken(name), num_files=10)
    assert files.reasons == {"a.jpg": "damaged", "b.jpg": "damaged"}
    assert [record.getMessage() for record in caplog.records] == [
        "skipped broken file number 1: a.jpg: damaged",
        "skipped broken file number 2: b.jpg: damaged",
    ]


@pytest.mark.parametrize(("limit", "num_files", "allowed"), [(2, 1000, 2), (0, 10, 0), (0.2, 10, 2), (0.1, 5, 1)])
def test_limit(limit, num_files, allowed):
    files = BrokenFiles(limit=limit)
    for number in range(allowed):
        files.add(broken(f"{number}.jpg"), num_files)
    with pytest.raises(
        TooManyBrokenFilesError, match=rf"{allowed + 1} of {num_files} files are broken.*last.jpg \(damag"
    ):
        files.add(broken("last.jpg"), num_files)


@pytest.mark.parametrize("limit", [-1, 1.0, -0.5])
def test_bad_limit(limit):
    with pytest.raises(ValueError, match="expected a count or a fraction"):
        BrokenFiles(limit=limit)


def test_file_joins_the_copies_of_several_workers(tmp_path):
    workers = [BrokenFiles(limit=2, file=tmp_path / "run" / "broken.jsonl") for _ in range(3)]
    workers[0].add(broken("a.jpg"), 10)
    workers[1].add(broken("a.jpg"), 10)
    workers[1].add(broken("b.jpg"), 10)
    assert workers[2].count == 2
    assert (tmp_path / "run" / "broken.jsonl").read_text().count("\n") == 2
    with pytest.raises(TooManyBrokenFilesError, match=r"a.jpg \(damaged\), b.jpg \(damaged\), c.jpg \(damaged\)"):
        workers[2].add(broken("c.jpg"), 10)


class Samples:
    """Ten samples of which some are broken; remembers what was tried."""

    def __init__(self, broken_indices):
        self.broken_indices, self.tried = broken_indices, []

    def read(self, key):
        self.tried.append(key.index)
        if key.index in self.broken_indices:
            raise broken(f"{key.index}.jpg")
        return key

    def get(self, key, seed=0, limit=10, max_tries=8):
        self.tried = []
        return read_or_replace(
            self.read,
            key,
            num_samples=10,
            num_files=10,
            seed=seed,
            broken_files=BrokenFiles(limit=limit),
            max_tries=max_tries,
        )


def test_intact_samples_are_unchanged():
    assert Samples({3}).get(SampleKey(4, 5)) == SampleKey(4, 5)


def test_replacement_depends_on_seed_epoch_and_index_only():
    samples = Samples({3})
    first = samples.get(SampleKey(1, 3))
    tried = samples.tried
    assert first.epoch == 1
    assert first.index not in samples.broken_indices
    assert samples.get(SampleKey(1, 3)) == first
    assert samples.tried == tried
    others = {samples.get(SampleKey(epoch, 3), seed=seed).index for epoch in range(8) for seed in range(4)}
    assert len(others) > 5  # spread over the data set, not the next one


def test_gives_up_after_max_tries():
    samples = Samples(set(range(10)))
    with pytest.raises(TooManyBrokenFilesError, match="4 samples in a row could not be read: "):
        samples.get(0, max_tries=4)
    assert len(set(samples.tried)) == len(samples.tried) == 4


def test_every_sample_is_tried_before_giving_up():
    samples = Samples(set(range(9)))
    assert samples.get(0, max_tries=100).index == 9


@pytest.mark.parametrize("index", [-1, 10])
def test_index_outside(index):
    with pytest.raises(IndexError, match="outside a data set of 10"):
        Samples(set()).get(index)


def test_other_errors_are_not_swallowed():
    def read(key):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        read_or_replace(read, 0, num_samples=1, num_files=1, seed=0, broken_files=BrokenFiles())

import numpy as np
import pytest

from omnistream.data.media.tum import read_trajectory
from omnistream.data.scenes.time_association import associate, nearest


def all_pairs(first, second, max_difference):
    """The rule as it is worded, over the product of both lists."""
    close = [
        (abs(a - b), a, b, i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if abs(a - b) < max_difference
    ]
    pairs = []
    for _, a, _, i, j in sorted(close):
        if all(i != other and j != others for _, other, others in pairs):
            pairs.append((a, i, j))
    return [[i, j] for _, i, j in sorted(pairs)]


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ([0, 0.03, 0.06, 0.10], [0.01, 0.021, 0.049, 0.121], [[0, 0], [1, 1], [2, 2]]),
        ([1.0, 1.01], [1.008, 1.030], [[1, 0]]),
        ([1.0], [1.0], [[0, 0]]),
        ([0.02], [0.0], []),  # the limit is excluded
        ([], [1.0], []),
        ([1.0], [], []),
    ],
)
def test_examples_of_the_rule(first, second, pairs):
    found = associate(np.array(first, float), np.array(second, float))
    assert found.tolist() == pairs
    assert found.shape == (len(pairs), 2)


def test_order_does_not_matter():
    first, second = np.array([0.10, 0, 0.06, 0.03]), np.array([0.121, 0.049, 0.021, 0.01])
    assert associate(first, second).tolist() == [[1, 3], [3, 2], [2, 1]]  # by the first timestamps: 0, 0.03, 0.06


def test_the_rule_over_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(200):
        # multiples of 1/256: distances are exact, and many are equal
        first, second = (rng.permutation(np.unique(rng.integers(0, 80, rng.integers(0, 40)))) / 256 for _ in range(2))
        limit = rng.integers(1, 12) / 256
        assert associate(first, second, limit).tolist() == all_pairs(first, second, limit)


def test_many_close_timestamps_take_no_product():
    # all 20,000 x 20,000 pairs are within the limit
    first = np.arange(20_000) * 1e-7
    assert associate(first, first + 4e-8).tolist() == [[i, i] for i in range(20_000)]


@pytest.mark.parametrize("bad", [[1.0, 1.0], [np.nan], [np.inf]])
def test_repeated_and_infinite_timestamps_are_refused(bad):
    for arguments in ((np.array(bad), np.array([1.0])), (np.array([1.0]), np.array(bad))):
        with pytest.raises(ValueError, match="timestamp"):
            associate(*arguments)
    with pytest.raises(ValueError, match="timestamp"):
        nearest(np.array([1.0]), np.array(bad))


def test_nearest():
    references = np.array([0.5, 0.11, 0.09])
    assert nearest(np.array([0.096, 0.0, 0.2, 0.11, 9.0, 0.491]), references).tolist() == [2, -1, -1, 1, -1, 0]
    assert nearest(np.array([0.25, 0.375]), np.array([0.125]), 0.125).tolist() == [-1, -1]  # the limit is excluded
    assert nearest(np.array([0.25]), np.array([0.125]), 0.126).tolist() == [0]
    assert nearest(np.array([1.0]), np.array([])).tolist() == [-1]
    assert nearest(np.array([]), np.array([1.0])).tolist() == []
    assert nearest(np.array([1.0]), np.array([0.75, 1.25]), 1.0).tolist() == [0]  # of two, the earlier


def test_nearest_against_all_distances():
    rng = np.random.default_rng(1)
    stamps, references = rng.random(200), rng.random(150)
    distances = np.abs(stamps[:, None] - references)
    expected = np.where(distances.min(1) < 0.004, distances.argmin(1), -1)
    assert nearest(stamps, references, 0.004).tolist() == expected.tolist()
    assert 20 < (expected < 0).sum() < 180


@pytest.mark.parametrize(
    ("estimate", "reference", "within_10_ms"),
    [
        ("freiburg1_xyz-rgbdslam", "freiburg1_xyz-groundtruth", 785),
        ("freiburg1_xyz-ORB_kf_mono", "freiburg1_xyz-groundtruth", 32),
        ("fr2_desk_ORB_kf_mono", "fr2_desk_groundtruth", 118),
    ],
)
def test_real_trajectories(sample_data, estimate, reference, within_10_ms):
    """The counts are those of evo's nearest-neighbour rule."""
    first, second = (
        read_trajectory(sample_data / "trajectories" / "tum" / f"{name}.txt").stamps for name in (estimate, reference)
    )
    assert (nearest(first, second, 0.01) >= 0).sum() == within_10_ms
    assert len(associate(first, second, 0.01)) == within_10_ms
    assert associate(first, second).tolist() == all_pairs(first[:], second[:], 0.02)

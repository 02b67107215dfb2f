import numpy as np
import pytest

from omnistream.data.scenes import ClipSampling
from omnistream.data.scenes.clips import sample_positions


def draw(total, start, sampling, count=300):
    rng = np.random.default_rng(0)
    return [sample_positions(total, start, sampling, rng) for _ in range(count)]


@pytest.mark.parametrize("video_prob", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("total", "start"), [(40, 0), (40, 20), (9, 0), (200, 7)])
def test_positions_are_different_and_inside(total, start, video_prob):
    for positions, _ in draw(total, start, ClipSampling(num_frames=8, max_interval=5, video_prob=video_prob)):
        assert len(set(positions.tolist())) == 8
        assert positions.min() >= start
        assert positions.max() < total


def test_videos_are_in_order_and_begin_at_the_start():
    for positions, is_video in draw(100, 3, ClipSampling(num_frames=6, max_interval=4)):
        assert is_video
        assert positions[0] == 3
        assert (np.diff(positions) >= 1).all()
        assert (np.diff(positions) <= 4).all()


def test_fixed_intervals():
    clips = draw(100, 0, ClipSampling(num_frames=6, max_interval=4, fix_interval_prob=1.0))
    steps = [set(np.diff(positions).tolist()) for positions, _ in clips]
    assert all(len(step) == 1 for step in steps)
    assert set.union(*steps) == {1, 2, 3, 4}
    # 14 frames are left for 5 steps: a fixed interval is at most 14 // 5
    near_the_end = draw(15, 0, ClipSampling(num_frames=6, max_interval=9, fix_interval_prob=1.0))
    assert {int(np.diff(positions)[0]) for positions, _ in near_the_end} == {1, 2}


def test_free_intervals_are_capped_by_what_is_left():
    # cap = min(9, 2 * 14 // 5) = 5; what falls past the end is replaced
    clips = draw(15, 0, ClipSampling(num_frames=6, max_interval=9, fix_interval_prob=0.0))
    assert {len(set(np.diff(positions).tolist())) for positions, _ in clips} > {1}
    assert max(int(positions[1]) for positions, _ in clips) <= 5


def test_exactly_enough_frames():
    for video_prob in (0.0, 1.0):
        positions, is_video = sample_positions(
            10, 4, ClipSampling(num_frames=6, video_prob=video_prob), np.random.default_rng(0)
        )
        assert positions.tolist() == [4, 5, 6, 7, 8, 9]
        assert is_video


def test_collections_are_shuffled_within_blocks():
    sampling = ClipSampling(num_frames=8, max_interval=1, video_prob=0.0, block_shuffle=4)
    clips = draw(100, 0, sampling)
    assert not any(is_video for _, is_video in clips)
    for positions, _ in clips:
        assert sorted(positions[:4]) == [0, 1, 2, 3]
        assert sorted(positions[4:]) == [4, 5, 6, 7]
    assert len({tuple(positions) for positions, _ in clips}) > 100


def test_single_frame():
    assert sample_positions(3, 2, ClipSampling(num_frames=1), np.random.default_rng(0))[0].tolist() == [2]


def test_too_few_frames():
    with pytest.raises(ValueError, match="expected 6 frames from position 5, the sequence has 10"):
        sample_positions(10, 5, ClipSampling(num_frames=6), np.random.default_rng(0))


@pytest.mark.parametrize("bad", [{"num_frames": 0}, {"max_interval": 0}, {"block_shuffle": 0}, {"video_prob": 1.5}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="expected"):
        ClipSampling(**bad)


def test_the_smallest_settings_are_allowed():
    assert (
        ClipSampling(num_frames=1, max_interval=1, block_shuffle=1, video_prob=0.0, fix_interval_prob=1.0).block_shuffle
        == 1
    )

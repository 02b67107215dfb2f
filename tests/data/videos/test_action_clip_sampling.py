"""Positions against those of V-JEPA 2's loader for 16 frames at a stride of 4."""

import numpy as np
import pytest

from omnistream.data.videos import segment_positions

WINDOW = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
LONG = [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49, 54, 58, 62, 62]


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (45, [0, 4, 8, 13, 17, 22, 26, 30, 35, 39, 43, 43, 43, 43, 43, 43]),
        (12, [0] + 15 * [10]),  # the last frame is never used
        (64, LONG),
        (1, 16 * [0]),
        (2, 16 * [0]),
    ],
)
@pytest.mark.parametrize("segments", [2, 8])
def test_all_segments_of_a_short_video_are_the_same(total, expected, segments):
    found = segment_positions(total, 16, 4, segments)
    assert found.tolist() == segments * [expected]
    assert found.tolist() == segment_positions(total, 16, 4, segments, np.random.default_rng(0)).tolist()


def test_two_segments_that_overlap():
    first, second = segment_positions(100, 16, 4, 2).tolist()
    assert first == LONG
    assert second == [place + 36 for place in LONG]
    assert second[:3] + second[-2:] == [36, 40, 45, 98, 98]


def test_eight_segments_of_a_kinetics_video_overlap_and_are_never_random():
    found = segment_positions(300, 16, 4, 8)
    assert found[:, 0].tolist() == [0, 33, 66, 99, 132, 165, 198, 231]
    assert found[-1, -1] == 293
    assert (found - found[:, :1] == LONG).all()
    assert (segment_positions(300, 16, 4, 8, np.random.default_rng(0)) == found).all()


def test_windows_of_a_long_video():
    found = segment_positions(150, 16, 4, 2)  # parts of 75 frames: 5 before the window, 6 after it
    assert found.tolist() == [[place + 5 for place in WINDOW], [place + 80 for place in WINDOW]]
    assert segment_positions(65, 16, 4, 1).tolist() == [WINDOW]
    assert segment_positions(130, 16, 4, 2)[1].tolist() == [place + 65 for place in WINDOW]
    assert segment_positions(128, 16, 4, 2)[1].tolist() == [place + 64 for place in LONG]  # a part just fits: no window


def test_random_windows_stay_in_their_part_and_are_drawn_apart():
    rng = np.random.default_rng(0)
    starts = np.array([segment_positions(150, 16, 4, 2, rng)[:, 0] for _ in range(300)])
    assert set(starts[:, 0]) == set(range(11))  # as in the original, the last place is never drawn
    assert set(starts[:, 1]) == set(range(75, 86))
    assert len({tuple(pair) for pair in starts}) > 50


def test_arguments_must_be_positive():
    for arguments in [(0, 16, 4, 1), (9, 0, 4, 1), (9, 16, 0, 1), (9, 16, 4, 0)]:
        with pytest.raises(ValueError, match="must be at least 1"):
            segment_positions(*arguments)

import numpy as np
import pytest

from omnistream.data.masking import (
    ImageMaskConfig,
    VideoMaskConfig,
    block_mask,
    block_shapes,
    masked_counts,
    video_mask,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("crops", "side", "counts"),
    [
        (8, 14, [39, 58, 78, 98]),
        (8, 32, [204, 307, 409, 512]),
        (32, 14, [24, 29, 34, 39, 44, 49, 53, 58, 63, 68, 73, 78, 83, 88, 93, 98]),
        (1, 14, []),
    ],
)
def test_masked_patches_have_the_recorded_counts(crops, side, counts):
    for seed in range(3):
        drawn = masked_counts(_rng(seed), crops, side * side, ImageMaskConfig())
        assert sorted(drawn.tolist()) == [0] * (crops - len(counts)) + counts


def test_masked_counts_are_shuffled_and_repeatable():
    first = [masked_counts(_rng(seed), 8, 196, ImageMaskConfig()) for seed in range(20)]
    assert len({tuple(counts.tolist()) for counts in first}) > 10
    assert np.array_equal(first[3], masked_counts(_rng(3), 8, 196, ImageMaskConfig()))


def test_blocks_are_exact_and_connected_more_than_chance():
    neighbours = []
    for seed in range(200):
        count = 1 + seed % 98
        mask = block_mask(_rng(seed), (14, 14), count, ImageMaskConfig())
        assert mask.sum() == count
        if count == 60:
            neighbours.append((mask[1:] & mask[:-1]).sum() / count)
    assert np.mean(neighbours) > 0.6  # independent patches: 0.29


def test_small_grids_fall_back_to_single_patches():
    for count in (0, 1, 3, 4):
        assert block_mask(_rng(), (2, 2), count, ImageMaskConfig()).sum() == count


def _clip_masks(seed: int, count: int, shape: tuple[int, int, int], config: VideoMaskConfig) -> np.ndarray:
    rng = _rng(seed)
    blocks = block_shapes(rng, shape, config)
    return np.stack([video_mask(rng, shape, blocks, config) for _ in range(count)])


@pytest.mark.parametrize(
    ("side", "long", "mean", "spread"),
    [(14, 0.0, 0.631, 0.079), (14, 1.0, 0.810, 0.074), (32, 0.0, 0.603, 0.073), (32, 1.0, 0.805, 0.063)],
)
def test_video_masks_cover_the_recorded_fractions(side, long, mean, spread):
    config = VideoMaskConfig(long_probability=long)
    fractions = np.concatenate([_clip_masks(seed, 4, (1, side, side), config).mean((1, 2, 3)) for seed in range(150)])
    assert fractions.mean() == pytest.approx(mean, abs=0.02)  # block sizes are shared by a batch: 150 draws
    assert fractions.std() == pytest.approx(spread, abs=0.02)


def test_video_masks_are_tubes_and_leave_something_visible():
    masks = _clip_masks(0, 40, (16, 6, 6), VideoMaskConfig())
    assert (masks == masks[:, :1]).all()
    assert masks.any((1, 2, 3)).all()
    assert not masks.all((1, 2, 3)).any()
    assert len({m.tobytes() for m in masks}) > 20


def test_short_blocks_in_time_differ_between_frames():
    masks = _clip_masks(0, 4, (16, 14, 14), VideoMaskConfig(temporal_scale=0.25))
    assert (masks != masks[:, :1]).any()


def test_video_mask_probability():
    masks = _clip_masks(0, 400, (2, 6, 6), VideoMaskConfig(probability=0.5))
    assert 160 < masks.any((1, 2, 3)).sum() < 240  # four standard deviations


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="ratio"):
        ImageMaskConfig(ratio=(0.5, 0.1))
    with pytest.raises(ValueError, match="long_scale"):
        VideoMaskConfig(long_scale=1.5)
    with pytest.raises(ValueError, match="cover the whole clip"):
        _clip_masks(0, 1, (2, 1, 1), VideoMaskConfig())

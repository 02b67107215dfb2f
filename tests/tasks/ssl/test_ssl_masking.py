import numpy as np
import pytest

from omnistream.tasks.ssl.masking import ImageMaskConfig, VideoMaskConfig, block_mask, image_masks, video_masks


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
def test_image_masks_have_the_recorded_counts(crops, side, counts):
    for seed in range(3):
        masks = image_masks(_rng(seed), crops, (side, side), ImageMaskConfig())
        assert sorted(masks.sum((1, 2)).tolist()) == [0] * (crops - len(counts)) + counts


def test_image_masks_are_shuffled_and_repeatable():
    first = [image_masks(_rng(seed), 8, (14, 14), ImageMaskConfig()) for seed in range(20)]
    assert len({tuple(m.sum((1, 2)).tolist()) for m in first}) > 10
    assert np.array_equal(first[3], image_masks(_rng(3), 8, (14, 14), ImageMaskConfig()))


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


@pytest.mark.parametrize(
    ("side", "long", "mean", "spread"),
    [(14, 0.0, 0.631, 0.079), (14, 1.0, 0.810, 0.074), (32, 0.0, 0.603, 0.073), (32, 1.0, 0.805, 0.063)],
)
def test_video_masks_cover_the_recorded_fractions(side, long, mean, spread):
    config = VideoMaskConfig(long_probability=long)
    fractions = np.concatenate(
        [video_masks(_rng(seed), 4, 1, (side, side), config).mean((1, 2, 3)) for seed in range(150)]
    )
    assert fractions.mean() == pytest.approx(mean, abs=0.02)  # block sizes are shared by a batch: 150 draws
    assert fractions.std() == pytest.approx(spread, abs=0.02)


def test_video_masks_are_tubes_and_leave_something_visible():
    masks = video_masks(_rng(), 40, 16, (6, 6), VideoMaskConfig())
    assert (masks == masks[:, :1]).all()
    assert masks.any((1, 2, 3)).all()
    assert not masks.all((1, 2, 3)).any()
    assert len({m.tobytes() for m in masks}) > 20


def test_short_blocks_in_time_differ_between_frames():
    masks = video_masks(_rng(), 4, 16, (14, 14), VideoMaskConfig(temporal_scale=0.25))
    assert (masks != masks[:, :1]).any()


def test_video_mask_probability():
    masks = video_masks(_rng(), 400, 2, (6, 6), VideoMaskConfig(probability=0.5))
    assert 160 < masks.any((1, 2, 3)).sum() < 240  # four standard deviations


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="ratio"):
        ImageMaskConfig(ratio=(0.5, 0.1))
    with pytest.raises(ValueError, match="long_scale"):
        VideoMaskConfig(long_scale=1.5)
    with pytest.raises(ValueError, match="cover the whole clip"):
        video_masks(_rng(), 1, 2, (1, 1), VideoMaskConfig())

"""Which patches the student does not see: blocks on images (DINOv3), space-time tubes on clips (V-JEPA).

Letters: M crops, T frames, h w patches. True means masked. All randomness comes from the generator that is passed in.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

_BLOCK_TRIES = 10
_VISIBLE_TRIES = 100


@dataclass(frozen=True)
class ImageMaskConfig:
    """Block masks of image crops; defaults are DINOv3's and the released OmniStream configuration's."""

    probability: float = 0.5
    """Share of the crops of a batch that get a mask."""
    ratio: tuple[float, float] = (0.1, 0.5)
    """Masked share of the patches; the masked crops of a batch are spread over this range."""
    min_patches: int = 4
    """Smallest area a block is drawn with."""
    max_block_fraction: float = 0.5
    """Largest share of the grid in one block."""
    min_aspect: float = 0.3
    """Block height over width is log-uniform in [x, 1/x]."""

    def __post_init__(self) -> None:
        _check_range("probability", (0.0, self.probability), 1.0)
        _check_range("ratio", self.ratio, 1.0)
        _check_range("min_aspect", (0.0, self.min_aspect), 1.0)
        if self.min_patches < 1 or not 0 < self.max_block_fraction <= 1 or self.min_aspect == 0:
            raise ValueError(f"min_patches, max_block_fraction and min_aspect must be positive, got {self}")


@dataclass(frozen=True)
class VideoMaskConfig:
    """Multi-block masks of clips; block numbers and sizes are V-JEPA's.

    The paper names V-JEPA's strategy without numbers, and V-JEPA applies both kinds of mask to every clip while iBOT
    has one mask per view: here every view draws one of the two kinds.
    """

    probability: float = 1.0
    """Probability that a view is masked at all; V-JEPA always masks."""
    long_probability: float = 0.5
    """Probability of the long-range kind (few large blocks) instead of the short-range kind (many small ones)."""
    short_blocks: int = 8
    """Blocks of a short-range mask."""
    short_scale: float = 0.15
    """Share of the grid in one short-range block."""
    long_blocks: int = 2
    """Blocks of a long-range mask."""
    long_scale: float = 0.7
    """Share of the grid in one long-range block."""
    aspect: tuple[float, float] = (0.75, 1.5)
    """Range of block height over width, uniform."""
    temporal_scale: float = 1.0
    """Share of the frames in one block; at 1 all frames have the same mask."""

    def __post_init__(self) -> None:
        for name in ("probability", "long_probability", "short_scale", "long_scale", "temporal_scale"):
            _check_range(name, (0.0, getattr(self, name)), 1.0)
        if min(self.short_blocks, self.long_blocks) < 1:
            raise ValueError(f"block numbers must be positive, got {self.short_blocks} and {self.long_blocks}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect must be 0 < low <= high, got {self.aspect}")


def _check_range(name: str, values: tuple[float, float], highest: float) -> None:
    if not 0.0 <= values[0] <= values[1] <= highest:
        raise ValueError(f"{name} must lie in [0, {highest}] in ascending order, got {values}")


def masked_counts(
    rng: np.random.Generator, num_crops: int, num_patches: int, config: ImageMaskConfig
) -> Int[np.ndarray, " M"]:
    """How many of its patches each crop of a batch has masked; the sum over the batch does not vary.

    int(M * probability) crops are masked; the i-th of them gets the upper end of the i-th of as many equal parts of the
    ratio range; then all are shuffled.

    Source: facebookresearch/dinov3: dinov3/data/collate.py, there over the batch of one process.
    """
    counts = np.zeros(num_crops, dtype=np.int64)
    num_masked = int(num_crops * config.probability)
    counts[:num_masked] = num_patches * np.linspace(*config.ratio, num_masked + 1)[1:]
    return rng.permutation(counts)


def block_mask(
    rng: np.random.Generator, grid: tuple[int, int], num_patches: int, config: ImageMaskConfig
) -> Bool[np.ndarray, "h w"]:
    """A mask of exactly `num_patches` patches: random blocks while they fit, single patches for the rest.

    Source: facebookresearch/dinov3: dinov3/data/masking.py.
    """
    mask = np.zeros(grid, dtype=bool)
    largest = int(grid[0] * grid[1] * config.max_block_fraction)
    while (missing := num_patches - int(mask.sum())) > 0 and _add_block(rng, mask, min(missing, largest), config):
        pass
    visible = np.flatnonzero(~mask)
    mask.flat[rng.choice(visible, size=missing, replace=False)] = True
    return mask


def _add_block(rng: np.random.Generator, mask: Bool[np.ndarray, "h w"], budget: int, config: ImageMaskConfig) -> bool:
    """Mask one more block of at most `budget` new patches; False if none was found in a few tries."""
    rows, columns = mask.shape
    limit = np.log(config.min_aspect)
    for _ in range(_BLOCK_TRIES):
        area = config.min_patches + (budget - config.min_patches) * rng.random()
        aspect = np.exp(rng.uniform(limit, -limit))
        height, width = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if not (height < rows and width < columns):
            continue
        top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        block = mask[top : top + height, left : left + width]
        if 0 < block.size - int(block.sum()) <= budget:
            block[:] = True
            return True
    return False


class BlockShapes(NamedTuple):
    """Frames, rows and columns of the blocks of both kinds, as all clips of a batch have them."""

    short: tuple[int, int, int]
    long: tuple[int, int, int]


def block_shapes(rng: np.random.Generator, shape: tuple[int, int, int], config: VideoMaskConfig) -> BlockShapes:
    """Draw the two block shapes for clips of `shape` = (frames, rows, columns) patches; V-JEPA does so once per batch.

    Source: facebookresearch/jepa: src/masks/multiblock3d.py; one frame per token here instead of two.
    """
    return BlockShapes(
        short=_block_shape(rng, shape, config.short_scale, config),
        long=_block_shape(rng, shape, config.long_scale, config),
    )


def video_mask(
    rng: np.random.Generator, shape: tuple[int, int, int], blocks: BlockShapes, config: VideoMaskConfig
) -> Bool[np.ndarray, "T h w"]:
    """Mask of one view of a clip: the union of blocks at independent places.

    Nothing is truncated: the masked counts differ between views.

    Source: as `block_shapes`.
    """
    masked, is_long = rng.random() < config.probability, rng.random() < config.long_probability
    if not masked:
        return np.zeros(shape, dtype=bool)
    block, count = (blocks.long, config.long_blocks) if is_long else (blocks.short, config.short_blocks)
    return _union_of_blocks(rng, shape, block, count)


def _block_shape(
    rng: np.random.Generator, shape: tuple[int, int, int], scale: float, config: VideoMaskConfig
) -> tuple[int, int, int]:
    frames, rows, columns = shape
    area, aspect = int(rows * columns * scale), rng.uniform(*config.aspect)
    height, width = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
    return max(1, int(frames * config.temporal_scale)), min(rows, max(1, height)), min(columns, max(1, width))


def _union_of_blocks(
    rng: np.random.Generator, shape: tuple[int, int, int], block: tuple[int, int, int], count: int
) -> Bool[np.ndarray, "T h w"]:
    for _ in range(_VISIBLE_TRIES):
        mask = np.zeros(shape, dtype=bool)
        for _ in range(count):
            corner = [int(rng.integers(whole - part + 1)) for whole, part in zip(shape, block, strict=True)]
            mask[tuple(slice(start, start + part) for start, part in zip(corner, block, strict=True))] = True
        if not mask.all():
            return mask
    raise ValueError(f"{count} blocks of {block} always cover the whole clip of {shape} patches; use smaller blocks")

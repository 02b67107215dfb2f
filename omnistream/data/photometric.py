"""Colour distortions of images and clips, batched on the device: one draw per sample, shared by all its frames.

Every random number comes from the sample's seed through numpy, so the result depends neither on the device nor on what
else is in the batch.

Letters: N samples, T frames, H W pixels, M the samples one operation applies to.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

SOLARIZE_THRESHOLD = 128 / 255
_NUM_UNIFORMS = 13  # 1 jitter, 4 factors, 4 order keys, 1 grayscale, 2 blur, 1 solarize

Blur = Literal["released", "intended"]


@dataclass(frozen=True)
class PhotometricConfig:
    """Strengths and probabilities of the distortions; the default changes nothing.

    They run in the order jitter, grayscale, blur, solarize. The four jitter operations run in an order drawn per
    sample, as in torchvision's ColorJitter.

    About blur: in DINOv2 and DINOv3 the probability reaches torchvision inverted, so released weights saw blur with
    probability 0.0 / 0.9 / 0.5 (first global, second global, local view) where 1.0 / 0.1 / 0.5 was meant
    (reports dinov3#286, dinov2#411). The presets default to what the released weights saw.
    """

    brightness: float = 0.0
    """Factor drawn from [max(0, 1 - x), 1 + x]; likewise contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Shift drawn from [-x, x] turns of the colour wheel; at most 0.5."""
    jitter_probability: float = 0.0
    """Probability that the four above are applied."""
    grayscale_probability: float = 0.0
    blur_probability: float = 0.0
    blur_kernel: int = 9
    """Width of the Gaussian kernel in pixels of the crop; odd."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the standard deviation in pixels."""
    solarize_probability: float = 0.0
    """Probability of inverting the values at or above 128/255."""

    def __post_init__(self) -> None:
        for name in ("jitter", "grayscale", "blur", "solarize"):
            value = getattr(self, f"{name}_probability")
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}_probability must be in [0, 1], got {value}")
        if min(self.brightness, self.contrast, self.saturation) < 0 or not 0.0 <= self.hue <= 0.5:
            raise ValueError(f"jitter strengths must be >= 0 and hue <= 0.5, got {self}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd and positive, got {self.blur_kernel}")
        if not 0.0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be 0 < low <= high, got {self.blur_sigma}")

    @classmethod
    def none(cls) -> "PhotometricConfig":
        """No distortion: only the conversion to float."""
        return cls()

    @classmethod
    def global_1(cls, blur: Blur = "released") -> "PhotometricConfig":
        """First global view of DINOv2 and DINOv3."""
        return replace(_DINO_COLOURS, blur_probability=0.0 if blur == "released" else 1.0)

    @classmethod
    def global_2(cls, blur: Blur = "released") -> "PhotometricConfig":
        """Second global view of DINOv2 and DINOv3: the one that is sometimes solarized."""
        probability = 0.9 if blur == "released" else 0.1
        return replace(_DINO_COLOURS, blur_probability=probability, solarize_probability=0.2)

    @classmethod
    def local(cls) -> "PhotometricConfig":
        """Local views of DINOv2 and DINOv3; the inversion of blur changes nothing at 0.5."""
        return replace(_DINO_COLOURS, blur_probability=0.5)

    @classmethod
    def geometry(cls) -> "PhotometricConfig":
        """Multi-view geometry training as in VGGT: the same distortion for all frames of a clip."""
        return cls(
            brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1, jitter_probability=0.9, grayscale_probability=0.05
        )


_DINO_COLOURS = PhotometricConfig(
    brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter_probability=0.8, grayscale_probability=0.2
)


def photometric(
    images: UInt8[Tensor, "N T 3 H W"],
    seeds: Int64[Tensor, " N"],
    config: PhotometricConfig,
    salt: int = 0,
) -> Float[Tensor, "N T 3 H W"]:
    """Distorted images as float32 in [0, 1].

    The N seeds are read on the CPU (a synchronisation if they live on a GPU; keep them on the CPU to avoid it).

    Args:
        images: Each row is an image (T=1) or a clip; a clip's frames share every random choice.
        seeds: One non-negative seed per row.
        config: What to do and how often.
        salt: Separates independent uses of the same seeds, such as the views of one image.

    Raises:
        ValueError: If the images are too small for the blur kernel.

    Source: the operations are torchvision's on float images (contrast pivots on the mean of each frame); order and
    strengths in `PhotometricConfig`.
    """
    draws = _draw(seeds, salt)
    out = images.float() / 255
    low, high = config.blur_sigma
    sigma = low + (high - low) * draws[:, 11]
    blur = lambda x, s: gaussian_blur(x, s, config.blur_kernel)  # noqa: E731
    # Mixed precision would blur in bfloat16, whose steps are those of 8-bit pixels and more.
    with torch.autocast(out.device.type, enabled=False):
        _jitter(out, draws[:, :9], config)
        _apply_where(out, draws[:, 9] < config.grayscale_probability, lambda x, _: grayscale(x).expand_as(x))
        _apply_where(out, draws[:, 10] < config.blur_probability, blur, sigma)
        _apply_where(out, draws[:, 12] < config.solarize_probability, lambda x, _: solarize(x))
    return out


def _draw(seeds: Int64[Tensor, " N"], salt: int) -> Float64[np.ndarray, "N U"]:
    """A fixed number of uniforms per sample, so that changing one probability leaves the other choices alone."""
    rows = [np.random.default_rng([seed, salt]).random(_NUM_UNIFORMS) for seed in seeds.tolist()]
    return np.stack(rows) if rows else np.empty((0, _NUM_UNIFORMS))


def _jitter(images: Float[Tensor, "N T 3 H W"], draws: Float64[np.ndarray, "N 9"], config: PhotometricConfig) -> None:
    """Colour jitter in place: in each of four turns every sample gets the next operation of its own order."""
    chosen = draws[:, 0] < config.jitter_probability
    strengths = np.array([config.brightness, config.contrast, config.saturation, config.hue])
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    lowest = np.array([0.0, 0.0, 0.0, -0.5])
    low, high = np.maximum(centre - strengths, lowest), centre + strengths
    factors = low + (high - low) * draws[:, 1:5]
    order = np.argsort(draws[:, 5:9], axis=1)
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for turn in range(4):
        for index, operation in enumerate(operations):
            if strengths[index] > 0:
                _apply_where(images, chosen & (order[:, turn] == index), operation, factors[:, index])


def _apply_where(
    images: Float[Tensor, "N T 3 H W"],
    chosen: np.ndarray,
    operation: Callable[[Tensor, Tensor], Tensor],
    values: np.ndarray | None = None,
) -> None:
    """Replace the chosen rows by `operation(rows, their values)`."""
    if not chosen.any():
        return
    # Queued, not waited for: a batch has dozens of these copies.
    rows = torch.from_numpy(np.flatnonzero(chosen)).to(images.device, non_blocking=True)
    if values is None:
        value = images.new_zeros(len(rows))
    else:
        value = torch.from_numpy(values[chosen]).to(images, non_blocking=True)
    images[rows] = operation(images[rows], value)


def grayscale(images: Float[Tensor, "M T 3 H W"]) -> Float[Tensor, "M T 1 H W"]:
    """Luma by the ITU-R 601 weights."""
    red, green, blue = images.unbind(dim=2)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(2)


def _blend(images: Tensor, other: Tensor | float, factor: Float[Tensor, " M"]) -> Tensor:
    factor = rearrange(factor, "m -> m 1 1 1 1")
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def adjust_brightness(images: Float[Tensor, "M T 3 H W"], factor: Float[Tensor, " M"]) -> Float[Tensor, "M T 3 H W"]:
    """Images blended with black."""
    return _blend(images, 0.0, factor)


def adjust_contrast(images: Float[Tensor, "M T 3 H W"], factor: Float[Tensor, " M"]) -> Float[Tensor, "M T 3 H W"]:
    """Images blended with the mean luma of each frame."""
    return _blend(images, reduce(grayscale(images), "m t 1 h w -> m t 1 1 1", "mean"), factor)


def adjust_saturation(images: Float[Tensor, "M T 3 H W"], factor: Float[Tensor, " M"]) -> Float[Tensor, "M T 3 H W"]:
    """Images blended with their luma."""
    return _blend(images, grayscale(images), factor)


def adjust_hue(images: Float[Tensor, "M T 3 H W"], shift: Float[Tensor, " M"]) -> Float[Tensor, "M T 3 H W"]:
    """Hue turned by `shift` (1 is the whole circle), value and saturation of HSV kept."""
    red, green, blue = images.unbind(dim=2)
    value, lowest = images.amax(dim=2), images.amin(dim=2)
    chroma = value - lowest
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * rearrange(shift, "m -> m 1 1 1")
    # HSV to RGB without branches: each channel dips below the value on its own side of the colour wheel.
    position = (torch.stack([sector + 5, sector + 3, sector + 1], dim=2)) % 6
    dip = torch.minimum(position, 4 - position).clamp(0, 1)
    return (value.unsqueeze(2) - chroma.unsqueeze(2) * dip).clamp(0, 1)


def gaussian_blur(
    images: Float[Tensor, "M T 3 H W"], sigma: Float[Tensor, " M"], kernel_size: int
) -> Float[Tensor, "M T 3 H W"]:
    """Gaussian blur with one standard deviation (pixels) per row and mirrored borders.

    Raises:
        ValueError: If an image side is not larger than half the kernel.
    """
    num_rows, num_frames, _, height, width = images.shape
    radius = kernel_size // 2
    if min(height, width) <= radius:
        raise ValueError(
            f"a blur kernel of {kernel_size} needs images larger than {radius} pixels, got {height}x{width}"
        )
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.unsqueeze(1)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    planes = F.pad(rearrange(images, "m t c h w -> (t c) m h w"), [radius] * 4, mode="reflect")
    planes = F.conv2d(planes, rearrange(kernel, "m k -> m 1 k 1"), groups=num_rows)
    planes = F.conv2d(planes, rearrange(kernel, "m k -> m 1 1 k"), groups=num_rows)
    return rearrange(planes, "(t c) m h w -> m t c h w", t=num_frames)


def solarize(images: Float[Tensor, "M T 3 H W"]) -> Float[Tensor, "M T 3 H W"]:
    """Values at or above 128/255 inverted."""
    return torch.where(images >= SOLARIZE_THRESHOLD, 1 - images, images)

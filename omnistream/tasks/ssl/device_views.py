"""From uint8 crops to the inputs of the networks: colours distorted per view, batched on the device."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from omnistream.data.batch import ViewBatch
from omnistream.data.photometric import PhotometricConfig, photometric
from omnistream.tasks.ssl.ibot import mask_weights


@dataclass(frozen=True)
class DistortionConfig:
    """Colour distortions of the views; the gram teacher's view has none."""

    global_first: PhotometricConfig = field(default_factory=PhotometricConfig.global_1)
    """Of the first global crop."""
    global_others: PhotometricConfig = field(default_factory=PhotometricConfig.global_2)
    """Of every other global crop."""
    local: PhotometricConfig = field(default_factory=PhotometricConfig.local)
    """Of the local crops."""


@dataclass
class DeviceViews:
    """Inputs of the networks, crop-major: rows are [crop 0 of all samples, crop 1 of all samples, ...].

    Attributes:
        globals: float [G*B, T, 3, S, S] in [0, 1], distorted.
        locals: float [L*B, T, 3, s, s] in [0, 1], distorted.
        masks: bool [G*B, T, h, w].
        masked_places: int64 [M], flat indices of the masked patches.
        masked_weights: float32 [M], see `ibot.mask_weights`.
        undistorted: uint8 [G*B, T, 3, S', S'] for the gram teacher, perhaps larger than `globals`.
        num_samples: B.
    """

    globals: Tensor
    locals: Tensor
    masks: Tensor
    masked_places: Int64[Tensor, " M"]
    masked_weights: Float32[Tensor, " M"]
    undistorted: Tensor
    num_samples: int

    def masked(self, patches: Float[Tensor, "C T h w D"]) -> Float[Tensor, "M D"]:
        """The masked patches of the global crops, in flat order."""
        return rearrange(patches, "c t h w d -> (c t h w) d").index_select(0, self.masked_places)


def device_views(batch: ViewBatch, patch_size: int, config: DistortionConfig) -> DeviceViews:
    """Views of a batch, each with its own random colours; they depend on the seeds of the samples alone.

    The masks determine the size at which student and teacher see the global crops. They are read on the host, like the
    seeds: keep both on the CPU, or this waits for the device.

    Raises:
        ValueError: If the batch has no masks, or its crops were cut for another patch size.
    """
    if batch.masks is None:
        raise ValueError("the batch has no masks; MultiCropDataset draws them with the views")
    side, num_global = batch.masks.shape[-1] * patch_size, batch.global_crops.shape[1]
    if batch.global_crops.shape[-1] < side:
        raise ValueError(
            f"global crops of {batch.global_crops.shape[-1]} px with {batch.masks.shape[-1]} mask cells a side do not "
            f"fit a backbone of patch size {patch_size}: set crops.patch_size to it, and sizes that are multiples of it"
        )
    distortions = [config.global_first, *[config.global_others] * (num_global - 1)]
    global_crops = [
        photometric(_reduce(crop, side), batch.seed, distortion, salt=i)
        for i, (crop, distortion) in enumerate(zip(batch.global_crops.unbind(1), distortions, strict=True))
    ]
    local_crops = [
        photometric(crop, batch.seed, config.local, salt=num_global + i)
        for i, crop in enumerate(batch.local_crops.unbind(1))
    ]
    masks, device = rearrange(batch.masks.cpu(), "b g t h w -> (g b) t h w"), batch.global_crops.device
    return DeviceViews(
        globals=torch.cat(global_crops),
        locals=torch.cat(local_crops) if local_crops else global_crops[0][:0],
        masks=masks.to(device, non_blocking=True),
        masked_places=masks.flatten().nonzero()[:, 0].to(device, non_blocking=True),
        masked_weights=mask_weights(masks).to(device, non_blocking=True),
        undistorted=rearrange(batch.global_crops, "b g t c h w -> (g b) t c h w"),
        num_samples=len(batch.seed),
    )


def _reduce(images: UInt8[Tensor, "B T 3 H W"], side: int) -> UInt8[Tensor, "B T 3 S S"]:
    """Crops for a larger gram view, resized to the student's size before their colours are distorted."""
    if images.shape[-1] == side:
        return images
    frames = rearrange(images, "b t c h w -> (b t) c h w").float()
    frames = F.interpolate(frames, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return rearrange(frames.round().clamp(0, 255).to(torch.uint8), "(b t) c h w -> b t c h w", t=images.shape[1])

"""Mean and standard deviation of the input that weights expect."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.variants import SAT493M_MEAN, SAT493M_STD
from omnistream.backbone.weights.formats import Converted
from omnistream.backbone.weights.source import WeightSource, section


@dataclass(frozen=True)
class Statistics:
    """Of the channels of images in [0, 1]."""

    origin: str
    """Where they come from."""
    mean: Sequence[float] | None = None
    """Means; None for those that the model has."""
    std: Sequence[float] | None = None
    """Standard deviations; None for those that the model has."""
    assumed: bool = False
    """Whether nothing says them."""


def find_statistics(source: WeightSource, converted: Converted, variant: str) -> Statistics:
    """The statistics that the weights of a source expect."""
    if converted.layout == "ours":
        return Statistics("as in the weights")
    timm = section(source.config, "pretrained_cfg")
    for mean, std, place in (
        (timm.get("mean"), timm.get("std"), "config.json"),
        (source.processor.get("image_mean"), source.processor.get("image_std"), "preprocessor_config.json"),
    ):
        if mean is not None and std is not None:
            return Statistics(f"of the source's {place}", mean, std)
    if _is_satellite(source, converted, variant):
        return Statistics("DINOv3's for satellite images (SAT-493M)", SAT493M_MEAN, SAT493M_STD)
    if "lvd1689m" in source.name.lower():
        return Statistics("DINOv3's for web images (LVD-1689M), which are ImageNet's")
    return Statistics("ImageNet's", assumed=True)


def _is_satellite(source: WeightSource, converted: Converted, variant: str) -> bool:
    """Of Meta's files only the satellite ViT-L and both 7B models have a norm for local crops."""
    local_norm = any(line.startswith("local_cls_norm.") for line in converted.dropped)
    return "sat493m" in source.name.lower() or (local_norm and variant == "vit_large")


def set_statistics(model: StreamingViT, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Write statistics to the buffers of a model; None leaves its own.

    Raises:
        ValueError: If they are not three finite numbers, or a standard deviation is not positive.
    """
    for buffer, values in ((model.mean, mean), (model.std, std)):
        if values is not None:
            buffer.copy_(_three_numbers(values).view(3, 1, 1))
    if not bool((model.std > 0).all()):
        raise ValueError(f"the standard deviations of the input must be positive, got {model.std.flatten().tolist()}")


def _three_numbers(values: Sequence[float]) -> Tensor:
    numbers = torch.tensor([float(value) for value in values])
    if numbers.shape != (3,) or not numbers.isfinite().all():
        raise ValueError(f"mean and std of the input have three numbers, one per channel, got {list(values)}")
    return numbers

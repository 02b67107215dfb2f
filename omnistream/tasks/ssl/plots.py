"""Validation plots of self-supervision."""

from typing import cast

from torch import nn

from omnistream.backbone import BackboneOutput
from omnistream.data.batch import ViewBatch
from omnistream.tasks.plots import FeaturesPlot, Plot, ViewsPlot
from omnistream.tasks.ssl.device_views import DistortionConfig, device_views


def ssl_plots(backbone: nn.Module, batch: ViewBatch, patch_size: int, distortions: DistortionConfig) -> dict[str, Plot]:
    """The views of the first sample as the networks see them, and the features of its first global crop.

    Args:
        backbone: In eval mode.
        batch: Images or clips, with masks.
        patch_size: Of the backbone.
        distortions: Of the colours.
    """
    views = device_views(batch, patch_size, distortions)
    first = slice(None, None, views.num_samples)
    local_crops = views.locals[first] if len(views.locals) else None
    frames = batch.global_crops[0, 0]
    output = cast(BackboneOutput, backbone(backbone.normalize(frames[None])))  # type: ignore[operator]
    return {
        "views": ViewsPlot(global_crops=views.globals[first], local_crops=local_crops, masks=views.masks[first]),
        "features": FeaturesPlot(images=frames, features=output.last[0].float()),
    }

"""Validation plots of the geometry objective."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from omnistream.cameras import decode_pose
from omnistream.tasks.geometry.prediction import GeometryPrediction
from omnistream.tasks.geometry.targets import GeometryTargets
from omnistream.tasks.plots import CameraPlot, DepthPlot, Plot


def geometry_plots(
    images: UInt8[Tensor, "B T 3 H W"],
    prediction: GeometryPrediction,
    targets: GeometryTargets,
    limit: int,
    *,
    world_to_camera: bool = False,
) -> dict[str, Plot]:
    """Depth and camera path of the first clips, in the units of the targets.

    A camera path needs at least two frames with a known pose; clips with fewer have only a depth plot.

    Args:
        images: As in the batch.
        prediction: For all or the first clips.
        targets: For the same clips.
        limit: Clips to show at most.
        world_to_camera: The direction in which both encode poses.
    """
    found: dict[str, Plot] = {}
    for index in range(min(limit, len(prediction.depth))):
        found[f"depth/{index}"] = DepthPlot(
            images=images[index],
            truth=targets.depth[index].float(),
            valid=targets.valid[index],
            prediction=prediction.depth[index].float(),
            confidence=prediction.depth_confidence[index].float(),
            note="scaled so that the mean distance of the true points is 1",
        )
        known = targets.pose_valid[index]
        if int(known.sum()) > 1:
            size = (images.shape[-2], images.shape[-1])
            poses = torch.stack([targets.pose[index][known], prediction.pose[index][known].to(targets.pose.dtype)])
            truth, predicted = decode_pose(poses, size, world_to_camera)[0]
            found[f"camera/{index}"] = CameraPlot(truth=truth, prediction=predicted)
    return found

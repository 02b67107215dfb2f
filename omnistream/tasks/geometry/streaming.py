"""The geometry heads on a stream: depth, rays, pose and points of every frame as it arrives."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omnistream.backbone import BackboneOutput
from omnistream.cameras import cameras_from_rays, decode_pose
from omnistream.tasks.geometry.module import GeometryModule
from omnistream.tasks.geometry.prediction import GeometryPrediction

CameraSource = Literal["head", "rays"]


@dataclass(kw_only=True)
class StreamedGeometry(GeometryPrediction):
    """Geometry of the latest S frames of B streams, in the frame of each stream's first camera, up to scale.

    Attributes:
        camera_to_world: Poses, OpenCV axes, [B, S, 4, 4]; NaN if they are computed from rays that fit no camera.
        intrinsics: K in pixels of the frames, [B, S, 3, 3]; NaN like the poses.
    """

    camera_to_world: Tensor
    intrinsics: Tensor


class GeometryStream:
    """Attaches a trained `GeometryModule` to a stream: `backbone.stream(heads={"geometry": GeometryStream(module)})`.

    Depth, rays and camera of a frame are predicted from the tokens of that frame alone, so they equal those of
    `GeometryModule.predict` on the whole clip. Nothing is remembered between steps.

    Args:
        module: Built for the stream's backbone; its mode is not changed, so put it in eval mode first.
        cameras: Where `camera_to_world` and `intrinsics` come from: the camera head, or the ray map weighted by its
            confidence, from which DA3 reports more accurate poses. The two need not agree.

    Raises:
        ValueError: If the module was not built, or `cameras` is unknown.

    Source: ByteDance-Seed/Depth-Anything-3 (its camera decoder and ray map are the same two ways); arXiv 2511.10647.
    """

    camera_token = True

    def __init__(self, module: GeometryModule, cameras: CameraSource = "head") -> None:
        if not hasattr(module, "head_layers"):
            raise ValueError("the geometry module has no heads yet; call module.build(backbone) first")
        if cameras not in ("head", "rays"):
            raise ValueError(f"cameras must be head or rays, got {cameras!r}")
        self.module, self.cameras, self.layers = module, cameras, module.head_layers

    @torch.no_grad()
    def __call__(self, output: BackboneOutput, size: tuple[int, int]) -> StreamedGeometry:
        """Geometry of the frames of `output`, whose height and width are `size`."""
        found = self.module.read(output)
        if self.cameras == "head":
            poses, intrinsics = decode_pose(found.pose, size, self.module.world_to_camera)
        else:
            # The confidence is trained only with `GeometryLossConfig.ray_confidence`; weights are equal without.
            weight = found.ray_confidence if self.module.loss_config.ray_confidence else None
            poses, intrinsics = cameras_from_rays(found.rays, weight, size)
        return StreamedGeometry(**vars(found), camera_to_world=poses, intrinsics=intrinsics)

"""Streaming geometric reconstruction as a training objective (paper Sec. 3.3)."""

from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torchmetrics import MetricCollection

from omnistream.backbone import BackboneOutput, OmniStream
from omnistream.data.batch import SceneClip
from omnistream.data.photometric import PhotometricConfig, photometric
from omnistream.distributed import all_reduce
from omnistream.metrics import AbsRel, ConstantAbsRel, DeltaAccuracy
from omnistream.tasks.geometry.camera_head import CameraHead
from omnistream.tasks.geometry.dual_dpt import DualDPT
from omnistream.tasks.geometry.losses import GeometryLossConfig, geometry_loss
from omnistream.tasks.geometry.plots import geometry_plots
from omnistream.tasks.geometry.prediction import GeometryPrediction
from omnistream.tasks.geometry.targets import GeometryTargets, ScaleFrames, geometry_targets
from omnistream.tasks.nonfinite import NonFiniteConfig
from omnistream.tasks.objective import Objective, ObjectiveLoss
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.plots import FeaturesPlot, Plot

DEFAULT_COLOURS = PhotometricConfig.geometry()
DEFAULT_LOSS = GeometryLossConfig()


class GeometryModule(Objective):
    """Depth, ray maps and cameras from clips with known geometry.

    Owns two heads, `dense` (dual DPT) and `camera` (MLP), which the checkpoint holds. Batches are `SceneClip`s. In
    train mode colours are distorted, identically in all frames of a clip; the geometry is unchanged.

    The targets are in the frame of the first camera, divided by the mean distance of the clip's points; the predictions
    are not rescaled, so the network learns that scale. Validation logs Abs Rel without alignment, that of the best
    constant depth (`abs_rel_constant`), and Abs Rel and the share within a ratio of 1.25 after every clip is aligned by
    its median (`*_median`) or by least squares (`*_scale`).

    Args:
        backbone: Given when fitted alone.
        optimizer: Used when fitted alone.
        layers: Four blocks (0-based) whose raw outputs the dense head reads; None for the backbone's own choice, which
            for 24 blocks is the release's (4, 11, 17, 23).
        features: Width of the dense head's fusion chains.
        out_channels: Widths of its four pyramid levels.
        hidden: Width of its last layer before the outputs.
        ray_down_ratio: Predict rays at 1/r of the image's sides; the paper's is 1, DA3's 2.
        frames_per_chunk: Frames the dense head works on at once; changes memory, not results.
        activation_checkpointing: Recompute the dense head in the backward pass.
        fov_activation: See `CameraHead`.
        loss: Weights and choices of the losses.
        photometric: Distortion of colours in training; None for none. The paper does not say; the default is VGGT's.
        scale_frames: Frames whose points determine the scale; see `scene_scale`.
        world_to_camera: Predict world-to-camera poses (VGGT) in place of camera-to-world (DA3); the paper does not say.
        nonfinite: Used when fitted alone.
        compile: Used when fitted alone.
        seed: Used when fitted alone.

    Raises:
        ValueError: If the sizes do not fit together or a layer does not exist.
    """

    task_name = "geometry"

    def __init__(
        self,
        backbone: OmniStream | None = None,
        optimizer: OptimizerConfig | None = None,
        *,
        layers: tuple[int, int, int, int] | None = None,
        features: int = 256,
        out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024),
        hidden: int = 32,
        ray_down_ratio: int = 1,
        frames_per_chunk: int = 8,
        activation_checkpointing: bool = False,
        fov_activation: Literal["softplus", "relu"] = "softplus",
        loss: GeometryLossConfig = DEFAULT_LOSS,
        photometric: PhotometricConfig | None = DEFAULT_COLOURS,
        scale_frames: ScaleFrames = "clip",
        world_to_camera: bool = False,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, nonfinite=nonfinite, compile=compile, seed=seed)
        if scale_frames not in ("clip", "first"):
            raise ValueError(f"scale_frames must be clip or first, got {scale_frames!r}")
        self.layers, self.features, self.out_channels, self.hidden = layers, features, out_channels, hidden
        self.ray_down_ratio, self.frames_per_chunk = ray_down_ratio, frames_per_chunk
        self.activation_checkpointing, self.fov_activation = activation_checkpointing, fov_activation
        self.loss_config, self.photometric_config = loss, photometric
        self.scale_frames, self.world_to_camera = scale_frames, world_to_camera
        self.metrics = MetricCollection(
            {
                "abs_rel": AbsRel(),
                "abs_rel_constant": ConstantAbsRel(),
                "abs_rel_median": AbsRel(alignment="median"),
                "delta1_median": DeltaAccuracy(alignment="median"),
                "abs_rel_scale": AbsRel(alignment="scale"),
                "delta1_scale": DeltaAccuracy(alignment="scale"),
            },
            compute_groups=False,  # they would be merged if a first batch happened to give equal states
        )
        self.record_arguments(locals())
        self.attach(backbone)

    def build(self, backbone: OmniStream) -> None:
        """Create the heads for this backbone's width, patch size and layers."""
        layers = tuple(backbone.default_layers if self.layers is None else self.layers)
        if len(layers) != 4 or any(not 0 <= layer < backbone.num_layers for layer in layers):
            raise ValueError(f"layers must be four blocks from 0 to {backbone.num_layers - 1}, got {layers}")
        self.head_layers = layers
        self.dense = DualDPT(
            backbone.embed_dim,
            backbone.patch_size,
            features=self.features,
            out_channels=self.out_channels,
            hidden=self.hidden,
            ray_down_ratio=self.ray_down_ratio,
            frames_per_chunk=self.frames_per_chunk,
            activation_checkpointing=self.activation_checkpointing,
        )
        self.camera = CameraHead(backbone.embed_dim, self.fov_activation)

    def read(self, output: BackboneOutput) -> GeometryPrediction:
        """Predictions from features of a clip, or of the latest frames of a stream.

        Args:
            output: From a forward pass or a session with `layers=self.head_layers, camera_token=True`.
        """
        assert output.camera is not None, "ask the backbone for camera_token=True"
        maps = self.dense([output.patches[layer] for layer in self.head_layers])
        return GeometryPrediction(**maps._asdict(), pose=self.camera(output.camera))

    def _forward(self, backbone: nn.Module, images: Tensor) -> GeometryPrediction:
        B, _, _, H, W = images.shape
        aspect_ratio = torch.full((B,), H / W, device=images.device)
        normalized = backbone.normalize(images)  # type: ignore[operator]
        return self.read(backbone(normalized, layers=self.head_layers, camera_token=True, aspect_ratio=aspect_ratio))

    @torch.no_grad()
    def predict(self, backbone: nn.Module, images: UInt8[Tensor, "B T 3 H W"]) -> GeometryPrediction:
        """Geometry of whole clips; the first frame is the reference. Put backbone and module in eval mode before."""
        return self._forward(backbone, images)

    def targets(self, batch: SceneClip) -> GeometryTargets:
        """Targets of the heads for this batch."""
        return geometry_targets(
            batch,
            scale_frames=self.scale_frames,
            ray_down_ratio=self.ray_down_ratio,
            world_to_camera=self.world_to_camera,
        )

    def compute(self, backbone: nn.Module, batch: SceneClip, step: int) -> ObjectiveLoss:
        """Loss of a batch of clips; in eval mode `aux` holds the predicted `depth` and the `targets`."""
        images = batch.images
        if self.training and self.photometric_config is not None:
            images = photometric(images, batch.seed, self.photometric_config)
        prediction, targets = self._forward(backbone, images), self.targets(batch)
        total, terms = geometry_loss(prediction, targets, self.loss_config)
        aux = {} if self.training else {"depth": prediction.depth.detach(), "targets": targets}
        return ObjectiveLoss(total=total, terms=terms, aux=aux)

    def update_metrics(self, backbone: nn.Module, batch: SceneClip, loss: ObjectiveLoss) -> None:
        """Add a validation batch to `metrics`, from the depth that `compute` predicted in eval mode."""
        targets: GeometryTargets = loss.aux["targets"]
        self.metrics.update(preds=loss.aux["depth"], target=targets.depth, valid=targets.valid)

    def compute_metrics(self) -> dict[str, Tensor]:
        """Metrics since the last call over all processes; empty if none of them had a batch."""
        updates = torch.tensor(float(self.metrics["abs_rel_median"].update_count), device=self.device)
        if not all_reduce(updates):
            return {}
        values = self.metrics.compute()
        self.metrics.reset()
        return values

    def plots(self, backbone: nn.Module, batch: SceneClip, limit: int) -> dict[str, Plot]:
        """Depth, camera path and patch features of the first clips; see `tasks.plots.HasPlots`."""
        images, prediction = batch.images[:limit], self.predict(backbone, batch.images[:limit])
        features = backbone(backbone.normalize(images)).last  # type: ignore[operator]
        found = geometry_plots(images, prediction, self.targets(batch), limit, world_to_camera=self.world_to_camera)
        for i in range(len(images)):
            found[f"features/{i}"] = FeaturesPlot(images=images[i], features=features[i])
        return found

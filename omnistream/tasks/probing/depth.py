"""Linear depth estimation on a frozen backbone, as published for NYUv2 (paper Sec. 4.3, App. C.1)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from omnistream.data.batch import DepthImage
from omnistream.data.depth_transforms import EIGEN_BOX, scaled_box
from omnistream.evaluation.cache import FeatureBatch
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.metrics import AbsRel, ConstantDepthRMSE, DeltaAccuracy, DepthRMSE, Log10Error, LogRMSE, SILog, SqRel
from omnistream.tasks.probing.depth_drawing import draw_depth_images
from omnistream.tasks.probing.depth_head import DepthHead, Spacing, Weighting
from omnistream.tasks.probing.depth_losses import depth_loss
from omnistream.tasks.probing.depth_schedule import DepthSchedule


@dataclass(frozen=True)
class DepthConfig:
    """Head, loss and optimiser; one head is trained per learning rate.

    The defaults are the paper's (learning rate, warm-up) or, where it gives nothing, DINOv3's.
    """

    lrs: tuple[float, ...] = (1e-3,)
    """Learning rates (paper Table 10: 1e-3; DINOv3's configuration: 3e-4). The schedule peaks at 0.751 of them."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    warmup_fraction: float = 1 / 3
    """Share of the steps for warming up (12,800 of 38,400)."""
    schedule_beta1: bool = True
    """Beta1 is 0 in the warm-up, then goes from 0.85 to 0.95; false keeps it at 0.9."""
    num_bins: int = 256
    """Bins of depth."""
    weighting: Weighting = "linear"
    """How logits weigh the bins."""
    spacing: Spacing = "linear"
    """How bins are spaced."""
    losses: Mapping[str, float] = field(default_factory=lambda: {"sig": 1.0})
    """Weights of the losses sig, gradient_log, gradient and l1."""
    sig_warmup_steps: int = 100
    """First steps, in which the loss sig has no variance term."""

    def __post_init__(self) -> None:
        if not self.lrs or min(self.lrs) <= 0 or self.weight_decay < 0:
            raise ValueError(f"lrs must be positive and weight_decay not negative; got {self}")
        if not 0 <= self.warmup_fraction < 1 or not self.losses:
            raise ValueError(f"warmup_fraction must be in [0, 1) and losses name at least one; got {self}")


class LinearDepthProbe(FrozenProbe):
    """Depth of every patch by one linear layer on the last tokens, bilinearly enlarged to the image.

    Images whose sides are no multiples of the patch size are padded with the mean colour, half of it on each side, and
    the prediction of the padding is cut off. In evaluation, true depth outside (min_depth, max_depth) or outside the
    evaluated box does not count, predictions are clamped to that range and never rescaled, and every metric is the mean
    over the images of its value in one image.

    Args:
        backbone: The model to evaluate.
        depth: Head, loss and optimiser.
        min_depth: Nearest depth in metres.
        max_depth: Farthest depth.
        eigen_crop: Evaluate inside the box of Eigen et al. 2014, scaled to the image.
        flip_test: In the test, average with the prediction of the mirrored image; never in validation.
        protocol: Stable name of the evaluation.
        options: Arguments of `FrozenProbe`.

    Source: facebookresearch/dinov3 dinov3/eval/depth (head, losses, schedule, evaluation).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        depth: DepthConfig = DepthConfig(),
        min_depth: float = 0.001,
        max_depth: float = 10.0,
        eigen_crop: bool = True,
        flip_test: bool = True,
        protocol: str = "depth",
        **options: Any,
    ) -> None:
        super().__init__(backbone, protocol=protocol, **options)
        self.depth, self.min_depth, self.max_depth = depth, min_depth, max_depth
        self.eigen_crop, self.flip_test = eigen_crop, flip_test
        self._flip = False
        """Whether a test with `flip_test` is running."""

    def settings(self) -> list[Setting]:
        """Every learning rate."""
        return [{"lr": lr, "weight_decay": self.depth.weight_decay} for lr in self.depth.lrs]

    def features(self, batch: DepthImage) -> Float[Tensor, "B *V h w D"]:
        """Tokens of the images in training; in evaluation, of each of V views: the image and, in a test, its mirror."""
        images = pad_to_patches(self.backbone.normalize(batch.image), self._patch_size)  # type: ignore[operator]
        if self.training:
            return self._tokens(images)
        views = [images, images.flip(-1)] if self._flip else [images]
        return torch.stack([self._tokens(view) for view in views], dim=1)

    def _tokens(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w D"]:
        return self.backbone(images[:, None]).last[:, 0]

    @property
    def _patch_size(self) -> int:
        return int(self.backbone.patch_size)  # type: ignore[arg-type]

    def targets(self, batch: DepthImage) -> Float[Tensor, "B H W"]:
        """True depth; 0 where it is unknown or, in evaluation, does not count."""
        return batch.depth if self.training else self._evaluated(batch.depth)

    def _evaluated(self, depth: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
        counts = (depth > self.min_depth) & (depth < self.max_depth)
        if self.eigen_crop:
            inside = torch.zeros_like(counts)
            inside[(..., *scaled_box(EIGEN_BOX, *depth.shape[-2:]))] = True
            counts &= inside
        return depth.where(counts, 0.0)

    def make_head(self, setting: Setting) -> nn.Module:
        """A fresh linear head."""
        return DepthHead(
            int(self.backbone.embed_dim),  # type: ignore[arg-type]
            self.depth.num_bins,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
            weighting=self.depth.weighting,
            spacing=self.depth.spacing,
        )

    def loss(self, prediction: Float[Tensor, "B h w"], target: Float[Tensor, "B H W"]) -> Float[Tensor, ""]:
        """Weighted sum of the losses at the resolution of the true depth."""
        depth = enlarge(prediction, self._patch_size, (target.shape[1], target.shape[2]))
        warmup = self.global_step < self.depth.sig_warmup_steps
        terms = [weight * depth_loss(name, depth, target, warmup) for name, weight in self.depth.losses.items()]
        return torch.stack(terms).sum()

    def predict(self, head: nn.Module, features: Float[Tensor, "B V h w D"]) -> Float[Tensor, "B h w"]:
        """Depth of every patch, averaged over the image and its mirror where there are both."""
        depth = [head(view).float() for view in features.unbind(1)]
        return depth[0] if len(depth) == 1 else (depth[0] + depth[1].flip(-1)) / 2

    def predict_batch(
        self, head: nn.Module, features: Float[Tensor, "B V h w D"], batch: DepthImage | FeatureBatch
    ) -> Float[Tensor, "B H W"]:
        """Depth of every pixel, clamped to the range of depths."""
        height, width = (batch.target if isinstance(batch, FeatureBatch) else batch.depth).shape[-2:]
        depth = enlarge(self.predict(head, features), self._patch_size, (height, width))
        return depth.clamp(self.min_depth, self.max_depth)

    def metrics(self) -> dict[str, Metric]:
        """The usual metrics, each a mean over images, and the RMSE of the best constant depth."""
        each: dict[str, Any] = {"average": "clip"}
        return {
            "rmse": DepthRMSE(**each),
            "abs_rel": AbsRel(**each),
            "log10": Log10Error(**each),
            "rmse_log": LogRMSE(**each),
            "silog": SILog(**each),
            "sq_rel": SqRel(**each),
            **{f"a{k}": DeltaAccuracy(1.25**k, **each) for k in (1, 2, 3)},
            "rmse_constant": ConstantDepthRMSE(),
        }

    def on_test_start(self) -> None:
        """Use mirrored images from now on, if so wanted."""
        self._flip = self.flip_test

    def on_test_end(self) -> None:
        """No more mirrored images."""
        self._flip = False

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW with the published betas; `make_scheduler` changes the first one."""
        return torch.optim.AdamW(groups, betas=(0.9, 0.99))

    def make_scheduler(self, optimizer: torch.optim.Optimizer, total: int) -> DepthSchedule:
        """The published schedule over all steps of the run."""
        return DepthSchedule(optimizer, total, round(self.depth.warmup_fraction * total), self.depth.schedule_beta1)

    def feature_options(self) -> dict[str, Any]:
        """Arguments that decide features and targets."""
        return {name: getattr(self, name) for name in ("min_depth", "max_depth", "eigen_crop", "flip_test")}

    def options(self) -> dict[str, Any]:
        """Arguments that decide features, heads and training."""
        return super().options() | {"depth": asdict(self.depth)}

    @torch.no_grad()
    def draw(self, batch: DepthImage) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """Input, true and predicted depth in one colour scale, and the relative error, of the first sample."""
        first = DepthImage(image=batch.image[:1], depth=batch.depth[:1], name=batch.name[:1], seed=batch.seed[:1])
        features, target = self.extract(first)
        head = self.heads[(self.selected or 0) * self.repetitions]
        prediction = self.prediction(head, self._inputs(features), first)
        return draw_depth_images(first.image[0], first.depth[0], target[0] > 0, prediction[0])


def pad_to_patches(images: Float[Tensor, "B 3 H W"], patch_size: int) -> Float[Tensor, "B 3 h w"]:
    """Images padded with 0, the mean colour, to multiples of the patch size; of an odd number the right gets more."""
    (top, bottom), (left, right) = (_padding(side, patch_size) for side in images.shape[-2:])
    return F.pad(images, (left, right, top, bottom))


def _padding(side: int, patch_size: int) -> tuple[int, int]:
    missing = -side % patch_size
    return missing // 2, missing - missing // 2


def enlarge(depth: Float[Tensor, "B h w"], patch_size: int, size: tuple[int, int]) -> Float[Tensor, "B H W"]:
    """Depth of patches as depth of pixels, bilinearly, without the padding of `pad_to_patches`.

    Args:
        depth: Of the patches of the padded image.
        patch_size: Side of a patch in pixels.
        size: Height and width of the image.
    """
    padded = [side * patch_size for side in depth.shape[-2:]]
    pixels = F.interpolate(depth[:, None], size=padded, mode="bilinear", align_corners=False)[:, 0]
    top, left = (_padding(side, patch_size)[0] for side in size)
    return pixels[:, top : top + size[0], left : left + size[1]]

"""Linear semantic segmentation on a frozen backbone: ADE20K as in DINOv3 (paper Sec. 4.3, Table 10)."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import Metric

from omnistream.data.batch import LabelledImage
from omnistream.data.label_colours import colour_classes
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.evaluation.results import ClassScores, MetricValue
from omnistream.evaluation.sliding_window import average_windows, cut_windows
from omnistream.metrics.segmentation import (
    IGNORE_INDEX,
    MajorityMeanIoU,
    MeanClassAccuracy,
    MeanIoU,
    PixelAccuracy,
    predicted_classes,
)
from omnistream.tasks.probing.batch_norm import FeatureBatchNorm
from omnistream.tasks.probing.class_scores import class_names

_BEST = "best_miou"
"""Entry of a checkpoint: best mIoU of the validations so far, and the step of it."""


class LinearSegmentationHead(nn.Sequential):
    """Dropout of whole channels, batch normalisation and a 1 x 1 convolution, from patch features to classes.

    Args:
        embed_dim: Width D of the features.
        num_classes: Classes C.
        dropout: Probability of dropping a channel of an image.
    """

    def __init__(self, embed_dim: int, num_classes: int, dropout: float = 0.1) -> None:
        classifier = nn.Conv2d(embed_dim, num_classes, kernel_size=1)
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]  # it has one
        super().__init__(nn.Dropout2d(dropout), FeatureBatchNorm(embed_dim), classifier)


def segmentation_loss(
    logits: Float[Tensor, "B C h w"], target: Int64[Tensor, "B H W"], ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, ""]:
    """Cross-entropy of bilinearly upsampled logits, averaged over all pixels: ignored ones count as 0.

    Args:
        logits: At patch resolution.
        target: True classes.
        ignore_index: Label of pixels without a class.

    Source: `dinov3/eval/segmentation/loss.py`; PyTorch's own mean is over the labelled pixels.
    """
    logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none").mean()


def warmup_one_cycle(step: int, total: int, warmup: int, ratio: float = 1e-6) -> float:
    """Factor on the learning rate at a step: a warm-up that already decays linearly, then a cosine to 0.

    It never reaches 1 and rises by 3.6 % at the end of the warm-up; the first two steps are alike. All of this is part
    of the published schedule.

    Args:
        step: From 0.
        total: Steps of the run.
        warmup: Steps of warm-up.
        ratio: Factor at the start.

    Source: `WarmupOneCycleLR` in dinov3/eval/segmentation/schedulers.py, whose loop skips the step at iteration 0.
    """
    taken = max(step - 1, 0)
    if taken < warmup:
        return (1 - (1 - taken / warmup) * (1 - ratio)) * (1 - taken / total)
    return 0.5 * (1 + math.cos(math.pi * (taken + 1) / total))


class SegmentationProbe(FrozenProbe):
    """A linear classifier of patches, trained on crops and evaluated with sliding windows.

    Features are the patch tokens after the final norm. In evaluation the logits of overlapping windows are averaged and
    resized to the labels. The published figure is the best of several evaluations in the course of training, on the
    very set that is reported; `miou` is that of the weights that are tested, `miou_best` that best one.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes C.
        protocol: Stable name of the evaluation.
        window: Side of a sliding window in pixels, the side of training crops.
        stride: Pixels from one window to the next; 341 is two thirds of 512.
        lr: Learning rate (paper Table 10: 1e-3).
        weight_decay: The paper gives none; 1e-3 is DINOv3's.
        warmup_steps: Of the schedule (paper Table 10: 1,500).
        dropout: Of channels in the head; the paper gives none, 0.1 is DINOv3's.
        options: Arguments of `FrozenProbe`.

    Raises:
        ValueError: If features are to be cached, which are those of random crops.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 150,
        *,
        protocol: str = "segmentation/ade20k",
        window: int = 512,
        stride: int = 341,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        warmup_steps: int = 1500,
        dropout: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(backbone, protocol=protocol, **options)
        if self.cache:
            raise ValueError("features of random crops cannot be cached: leave cache of a SegmentationProbe at false")
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be from 1 to {IGNORE_INDEX}, got {num_classes}")
        self.num_classes, self.window, self.stride = num_classes, window, stride
        self.lr, self.weight_decay, self.warmup_steps, self.dropout = lr, weight_decay, warmup_steps, dropout
        self.best: tuple[float, int] | None = None
        """Best mIoU of the validations in training, and the step of it."""

    def settings(self) -> list[Setting]:
        """One setting."""
        return [{"lr": self.lr, "weight_decay": self.weight_decay}]

    def make_head(self, setting: Setting) -> nn.Module:
        """A fresh linear head."""
        return LinearSegmentationHead(int(self.backbone.embed_dim), self.num_classes, self.dropout)  # type: ignore[arg-type]

    def features(self, batch: LabelledImage) -> Float[Tensor, "B *N D h w"]:
        """Patch tokens of crops [B, D, h, w] in training, of all windows [B, N, D, h, w] in evaluation."""
        if self.training:
            return self._patches(batch.images[:, 0])
        windows = cut_windows(batch.images[:, 0], self.window, self.stride)
        return self._patches(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def _patches(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        backbone: Any = self.backbone
        return rearrange(backbone(backbone.normalize(images[:, None])).last, "b 1 h w d -> b d h w")

    def targets(self, batch: LabelledImage) -> Int64[Tensor, "B H W"]:
        """Classes of the pixels.

        Raises:
            ValueError: If a class is out of range.
        """
        labels = batch.labels.long()
        highest = int(torch.where(labels == IGNORE_INDEX, -1, labels).max())
        if highest >= self.num_classes:
            raise ValueError(
                f"an image of {batch.name} holds class {highest}, but model.num_classes is {self.num_classes}"
            )
        return labels

    def loss(self, prediction: Float[Tensor, "B C h w"], target: Int64[Tensor, "B H W"]) -> Float[Tensor, ""]:
        """See `segmentation_loss`."""
        return segmentation_loss(prediction, target)

    def predict_batch(
        self, head: nn.Module, features: Float[Tensor, "B N D h w"], batch: LabelledImage
    ) -> Int64[Tensor, "B H W"]:
        """Classes at the resolution of the labels, from logits that are averaged over the windows."""
        height, width = batch.images.shape[-2:]
        logits = average_windows(lambda n: head(features[:, n]), height, width, self.window, self.stride)
        size = tuple(batch.labels.shape[-2:])
        return predicted_classes(F.interpolate(logits, size, mode="bilinear", align_corners=False))

    def metrics(self) -> dict[str, Metric]:
        """mIoU, accuracies, and the mIoU of always predicting the most frequent class."""
        classes = self.num_classes
        return {
            "miou": MeanIoU(classes),
            "aacc": PixelAccuracy(classes),
            "macc": MeanClassAccuracy(classes),
            "miou_majority": MajorityMeanIoU(classes),
        }

    def schedule(self, step: int, total: int) -> float:
        """See `warmup_one_cycle`."""
        return warmup_one_cycle(step, total, self.warmup_steps)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and remember the best mIoU of a training run."""
        super().on_validation_epoch_end()
        if self.trainer.state.fn != TrainerFn.FITTING or self.trainer.sanity_checking:
            return
        value = float(self.trainer.callback_metrics["val/miou"])
        if self.best is None or value > self.best[0]:
            self.best = (value, self.global_step)
        self.log("val/miou_best", self.best[0], batch_size=1)

    def test_results(self) -> dict[str, Any]:
        """The results with the IoU of every class, and the best mIoU of the validations in training if it is known."""
        miou: Any = self.head_metrics[0]["miou"]  # type: ignore[index]
        classes = ClassScores.of(
            "iou", class_names(self, self.num_classes), miou.class_iou, miou.class_pixels, "pixels"
        )
        results = super().test_results() | {"per_class": classes}
        if self.best is None:
            return results
        best = MetricValue(value=self.best[0], higher_is_better=True)
        choice = {"on": "val", "metric": "miou_best", "step": self.best[1]}
        return results | {"metrics": results["metrics"] | {"miou_best": best}, "selection": choice}

    def options(self) -> dict[str, Any]:
        """Arguments that decide features and head."""
        names = ("num_classes", "window", "stride", "warmup_steps", "dropout")
        return {name: getattr(self, name) for name in names}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the best mIoU so far, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_BEST] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what was kept."""
        super().on_load_checkpoint(checkpoint)
        self.best = checkpoint[_BEST]

    @torch.no_grad()
    def draw(self, batch: LabelledImage) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """The first image of a test batch, its true and its predicted classes in colours; black where there is none."""
        first = replace(batch, images=batch.images[:1], labels=batch.labels[:1])
        features = self.extract(first).features
        predicted = self.prediction(self.heads[(self.selected or 0) * self.repetitions], features, first)[0]
        truth = first.labels[0]
        unlabelled = truth == IGNORE_INDEX
        return {
            "image": first.images[0, 0].cpu(),
            "truth": colour_classes(truth),
            "prediction": colour_classes(torch.where(unlabelled, IGNORE_INDEX, predicted)),
        }

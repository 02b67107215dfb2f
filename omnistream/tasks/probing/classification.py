"""Image classification on a frozen backbone: what linear and nearest-neighbour probes share, and the linear one."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from omnistream.data.batch import FrameClip
from omnistream.evaluation.frozen import Setting
from omnistream.metrics import MajorityAccuracy, TopKAccuracy
from omnistream.tasks.probing.class_scores import ClassProbe, class_names, known_class_names
from omnistream.tasks.probing.clip_features import class_labels

LRS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
"""The published learning rates (DINOv3; 13 from 1e-5 to 1e-1 also in the paper, App. C.1), before scaling."""
LR_BATCH_SIZE = 256
"""Images per step, over all processes, for which learning rates are meant; for others they are scaled in proportion."""


class ImageClassification(ClassProbe):
    """Targets, metrics and plots of every probe that classifies images.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        protocol: Stable name of the evaluation.
        options: Arguments of `FrozenProbe`.

    Raises:
        ValueError: If there are no classes.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, protocol: str, **options: Any) -> None:
        super().__init__(backbone, protocol=protocol, **options)
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        self.num_classes = num_classes

    def targets(self, batch: FrameClip) -> Int64[Tensor, " B"]:
        """The classes."""
        return class_labels(batch, self.num_classes)

    def metrics(self) -> dict[str, Metric]:
        """Top-1 and top-5 accuracy, and the accuracy of always predicting the most frequent class."""
        return {
            "top1": TopKAccuracy(),
            "top5": TopKAccuracy(5),
            "top1_majority": MajorityAccuracy(self.num_classes),
        }

    def options(self) -> dict[str, Any]:
        """Arguments that decide features and classes."""
        return super().options() | {"num_classes": self.num_classes}

    def setup(self, stage: str) -> None:
        """Compare the classes of the data with those of the heads, once the data is there."""
        self._check_classes()

    def _check_classes(self) -> None:
        """Compare numbers of classes.

        Raises:
            ValueError: If the data has other classes than the heads are for.
        """
        names = known_class_names(self)
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"the data has {len(names)} classes and the probe {self.num_classes}: complete the data, or set "
                f"model.num_classes to {len(names)}"
            )

    def draw(self, batch: FrameClip) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """The first image of the last test batch, under its true and its predicted class.

        The prediction is that of the setting which the last validation chose; without one, of the first setting.
        """
        names = class_names(self, self.num_classes)
        predicted = self._predicted[(self.selected or 0) * self.repetitions][-1][0]
        return {f"{names[int(batch.label[0])]}, predicted {names[int(predicted)]}": batch.images[0, 0]}


class LinearClassification(ImageClassification):
    """Linear classifiers on the class token and the mean patch token, one for every learning rate.

    The features are those of the last block after the final norm; registers are not used. Learning rates are scaled
    with the number of images per step over all processes, `lr * batch / 256`, and decay to 0 by a cosine over the whole
    run without warm-up. As published, the classifier that is best on the test set at the end is reported; with
    `selection: val` and held-out training images it is chosen without looking at the test set.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        lrs: Learning rates before scaling.
        optimizer: `sgd` with momentum 0.9, as published, or `adamw`; neither with weight decay.
        protocol: Stable name of the evaluation.
        selection: See `FrozenProbe`.
        options: Arguments of `FrozenProbe`.

    Raises:
        ValueError: If there is no learning rate, or one is not positive.

    Source: facebookresearch/dinov3 dinov3/eval/linear.py; paper App. C.1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 1000,
        *,
        lrs: tuple[float, ...] = LRS,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        protocol: str = "classification",
        selection: Literal["val", "test"] = "test",
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, protocol=protocol, selection=selection, **options)
        if not lrs or min(lrs) <= 0 or optimizer not in ("sgd", "adamw"):
            raise ValueError(f"needs positive lrs, and optimizer sgd or adamw; got {lrs} and {optimizer!r}")
        self.lrs, self.optimizer = lrs, optimizer

    def features(self, batch: FrameClip) -> Float[Tensor, "B F"]:
        """Class token and mean patch token of the image."""
        return image_features(self.backbone, batch.images)

    def settings(self) -> list[Setting]:
        """Learning rates before scaling."""
        return [{"lr": lr} for lr in self.lrs]

    def make_head(self, setting: Setting) -> nn.Linear:
        """A linear classifier with weights from N(0, 0.01) and bias 0."""
        head = nn.Linear(2 * int(self.backbone.embed_dim), self.num_classes)  # type: ignore[arg-type]
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head

    def loss(self, prediction: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(prediction, target)

    def images_per_step(self) -> int:
        """Images of one optimiser step over all processes.

        Raises:
            ValueError: If the data comes from no data module that knows its batch size.
        """
        size = getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)
        if size is None:
            raise ValueError("learning rates are scaled with the batch size: fit with an EvaluationDataModule")
        return int(size) * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over all classifiers, with scaled learning rates."""
        scale = self.images_per_step() / LR_BATCH_SIZE
        scaled = [group | {"lr": group["lr"] * scale} for group in groups]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(scaled, weight_decay=0.0)
        return torch.optim.SGD(scaled, momentum=0.9)

    def schedule(self, step: int, total: int) -> float:
        """A cosine from 1 at the first step towards 0 after the last."""
        return 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))

    def feature_options(self) -> dict[str, Any]:
        """What the features are."""
        return {"features": "cls and mean patch of the last block"}

    def options(self) -> dict[str, Any]:
        """Arguments that decide features, classes and training."""
        return super().options() | {"optimizer": self.optimizer}


def image_features(
    backbone: nn.Module, images: UInt8[Tensor, "B T 3 H W"], mean_patch: bool = True
) -> Float[Tensor, "B F"]:
    """The class token of an image after the final norm, and the mean of its patch tokens: D or 2 D numbers.

    Args:
        backbone: A `Backbone`.
        images: Clips of one frame.
        mean_patch: Whether the mean of the patch tokens follows the class token.

    Raises:
        ValueError: If a clip has more frames.
    """
    if images.shape[1] != 1:
        raise ValueError(f"images are clips of one frame, got {images.shape[1]} frames")
    output = backbone(backbone.normalize(images))  # type: ignore[operator]
    cls = output.cls[:, 0].float()
    return torch.cat([cls, output.last[:, 0].float().mean((1, 2))], dim=-1) if mean_patch else cls

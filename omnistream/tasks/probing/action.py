"""Action recognition on a frozen backbone: attentive probes (paper App. C.2) and a linear one."""

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchmetrics import Metric

from omnistream.data.batch import FrameClip
from omnistream.evaluation.closed_form import ClosedFormProbe
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.metrics import MajorityAccuracy, TopKAccuracy
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.clip_features import class_labels, clip_tokens, spatial_views
from omnistream.tasks.probing.linear import RidgeClassifier


@dataclass(frozen=True)
class ProbeConfig:
    """Shape of the probe and the settings it is trained with; one probe is trained per pair of lr and weight decay."""

    num_layers: int = 4
    """Blocks, the cross-attention included (paper App. C.2)."""
    num_heads: int = 16
    """Attention heads (paper App. C.2)."""
    lrs: tuple[float, ...] = (1e-4, 3e-4)
    """Learning rates (Table 11: these for K400, 3e-4 for SSv2), decayed to 0 by a cosine without warm-up."""
    weight_decays: tuple[float, ...] = (0.01,)
    """Weight decays, on all parameters; the paper gives none, 0.01 is V-JEPA's."""
    num_positions: int | None = None
    """Tokens of a clip, for a learned position embedding; None as published. See `AttentiveProbe`."""
    query_std: float = 0.02
    """Initial spread of the probe's query; see `AttentiveProbe`."""
    activation_checkpointing: bool = False
    """Recompute the self-attention blocks in the backward pass."""

    def __post_init__(self) -> None:
        if not self.lrs or not self.weight_decays or min(self.lrs) <= 0 or min(self.weight_decays) < 0:
            raise ValueError(f"lrs must be positive and weight_decays not negative, at least one each; got {self}")
        if self.query_std <= 0:
            raise ValueError(f"query_std must be positive, got {self.query_std}")


class ClipClassification(FrozenProbe):
    """Features and metrics of every action probe: tokens of all frames, top-1 accuracy over spatial views.

    Training sees the central square of a clip. In evaluation the predictions of several squares are averaged; the
    tokens of the temporal segments of one square are joined before the head.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        protocol: Stable name of the evaluation.
        frames_per_segment: Frames of a segment (paper: 16); clips may hold several, one after the other, also in
            training. None if a clip is one segment.
        num_crops: Spatial views in evaluation (paper: 3), squares of the clip's shorter side.
        token_grid: Average every frame to this many tokens per side; None keeps all patches.
        options: Arguments of `FrozenProbe`. `selection`: V-JEPA 2 chooses the setting on the test set.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        protocol: str = "action",
        frames_per_segment: int | None = None,
        num_crops: int = 3,
        token_grid: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, protocol=protocol, **options)
        self.num_classes, self.num_crops = num_classes, num_crops
        self.frames_per_segment, self.token_grid = frames_per_segment, token_grid

    def features(self, batch: FrameClip) -> Float[Tensor, "B *V N D"]:
        """Tokens of the central view in training, and of every view [B, V, N, D] in evaluation."""
        square = batch.images.shape[-1] == batch.images.shape[-2]
        views = spatial_views(batch.images, 1 if self.training or square else self.num_crops)
        options = {"frames_per_segment": self.frames_per_segment, "token_grid": self.token_grid}
        tokens = [clip_tokens(self.backbone, images, **options) for images in views]
        return tokens[0] if self.training else torch.stack(tokens, dim=1)

    def targets(self, batch: FrameClip) -> Int64[Tensor, " B"]:
        """The classes."""
        return class_labels(batch, self.num_classes)

    def loss(self, prediction: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(prediction, target)

    def predict(self, head: nn.Module, features: Float[Tensor, "B V N D"]) -> Float[Tensor, "B C"]:
        """Class probabilities, averaged over the views."""
        return torch.stack([head(view).float().softmax(-1) for view in features.unbind(1)]).mean(0)

    def metrics(self) -> dict[str, Metric]:
        """Top-1 accuracy, and the accuracy of always predicting the most frequent class."""
        return {"accuracy": TopKAccuracy(), "accuracy_majority": MajorityAccuracy(self.num_classes)}

    def feature_options(self) -> dict[str, Any]:
        """Arguments that decide the tokens."""
        return {name: getattr(self, name) for name in ("frames_per_segment", "num_crops", "token_grid")}

    def options(self) -> dict[str, Any]:
        """Arguments that decide features and classes."""
        return super().options() | {"num_classes": self.num_classes, "standardize": self.standardize}


class AttentiveActionProbe(ClipClassification):
    """A sweep of attentive probes (paper App. C.2).

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        probe: Shape and settings of the probes.
        protocol: Stable name of the evaluation.
        options: Arguments of `ClipClassification`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        probe: ProbeConfig = ProbeConfig(),
        protocol: str = "action_attentive",
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, protocol=protocol, **options)
        self.probe = probe

    def settings(self) -> list[Setting]:
        """Every pair of learning rate and weight decay."""
        pairs = product(self.probe.lrs, self.probe.weight_decays)
        return [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]

    def make_head(self, setting: Setting) -> nn.Module:
        """A fresh attentive probe."""
        return AttentiveProbe(
            int(self.backbone.embed_dim),  # type: ignore[arg-type]
            self.num_classes,
            num_layers=self.probe.num_layers,
            num_heads=self.probe.num_heads,
            activation_checkpointing=self.probe.activation_checkpointing,
            num_positions=self.probe.num_positions,
            query_std=self.probe.query_std,
        )

    def options(self) -> dict[str, Any]:
        """Arguments that decide features and probes."""
        return super().options() | {"probe": asdict(self.probe)}


class LinearActionProbe(ClosedFormProbe, ClipClassification):
    """A ridge classifier over space and time, in closed form: no step size, no epochs; see `RidgeClassifier`.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        num_components: Principal components kept per token.
        holdout: Share of the training clips that chooses the ridge penalty.
        protocol: Stable name of the evaluation.
        options: Arguments of `ClipClassification`; `seed` is also that of the held-out share.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        num_components: int = 8,
        holdout: float = 0.2,
        protocol: str = "action_linear",
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, protocol=protocol, **options)
        self.num_components, self.holdout = num_components, holdout

    def make_head(self, setting: Setting) -> nn.Module:
        """A classifier that is not fitted yet."""
        return RidgeClassifier(self.num_classes, self.num_components, self.holdout, self.seed)

    def predict(self, head: nn.Module, features: Float[Tensor, "B V N D"]) -> Float[Tensor, "B C"]:
        """Scores, averaged over the views."""
        return torch.stack([head(view) for view in features.unbind(1)]).mean(0)

    def options(self) -> dict[str, Any]:
        """Arguments that decide features and classifier."""
        return super().options() | {"num_components": self.num_components, "holdout": self.holdout}

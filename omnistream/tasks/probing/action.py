"""Action recognition on a frozen backbone: attentive probes (paper App. C.2) and a linear one."""

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from omnistream.data.batch import FrameClip
from omnistream.evaluation.closed_form import ClosedFormProbe
from omnistream.evaluation.frozen import Setting
from omnistream.metrics import MajorityAccuracy, OppositeAccuracy, TopKAccuracy
from omnistream.tasks.probing.attention_images import draw_attention
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.class_scores import ClassProbe
from omnistream.tasks.probing.clip_features import class_labels, clip_tokens
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
    """Tokens of a clip or of a frame, for a learned position embedding; None as published. See `AttentiveProbe`."""
    query_std: float = 0.02
    """Initial spread of the probe's query; see `AttentiveProbe`."""
    activation_checkpointing: bool = False
    """Recompute the self-attention blocks in the backward pass."""

    def __post_init__(self) -> None:
        if not self.lrs or not self.weight_decays or min(self.lrs) <= 0 or min(self.weight_decays) < 0:
            raise ValueError(f"lrs must be positive and weight_decays not negative, at least one each; got {self}")
        if self.query_std <= 0:
            raise ValueError(f"query_std must be positive, got {self.query_std}")


class ClipClassification(ClassProbe):
    """Features and metrics of every action probe: tokens of all frames, top-1 accuracy over spatial views.

    A clip holds its segments one after the other. In evaluation it may have several spatial views, [B, V, F, 3, S, S]
    (see `omnistream.data.videos.SpatialViews`), whose class probabilities are averaged.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        protocol: Stable name of the evaluation.
        frames_per_segment: Frames of a segment (paper: 16), each its own stream; None if a clip is one segment.
        attend_across_segments: Give the head the tokens of all segments at once; otherwise it sees one segment at a
            time, in training too, and probabilities are averaged over segments.
        token_grid: Average every frame to this many tokens per side; None keeps all patches.
        per_frame: Encode every frame by itself: the baseline that shows what features of time add.
        opposites: Classes 2 i and 2 i + 1 are each other's reversal, as those of the procedural world. The metric
            `direction_accuracy` is then the share of clips whose class is more likely than its reversal: 0.5 for
            features without time, whatever else they know.
        options: Arguments of `FrozenProbe`. `selection`: V-JEPA 2 chooses the setting on the test set.

    Source: facebookresearch/vjepa2 evals/video_classification_frozen; jepa has `attend_across_segments`, too.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        protocol: str = "action",
        frames_per_segment: int | None = None,
        attend_across_segments: bool = True,
        token_grid: int | None = None,
        per_frame: bool = False,
        opposites: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, protocol=protocol, **options)
        if opposites and num_classes % 2:
            raise ValueError(f"opposites need an even number of classes, got {num_classes}")
        self.opposites = opposites
        self.num_classes, self.token_grid, self.per_frame = num_classes, token_grid, per_frame
        self.frames_per_segment, self.attend_across_segments = frames_per_segment, attend_across_segments

    def features(self, batch: FrameClip) -> Float[Tensor, "B *V N D"]:
        """Tokens [B, N, D] in training, and of every view [B, V, N, D] in evaluation.

        Where the head sees one segment at a time, segments count as samples in training and as views in evaluation.
        """
        views = batch.images.unbind(1) if batch.images.ndim == 6 else (batch.images,)
        options = {"frames_per_segment": self.frames_per_segment, "token_grid": self.token_grid}
        tokens = torch.stack(
            [clip_tokens(self.backbone, images, **options, per_frame=self.per_frame) for images in views], dim=1
        )
        if not self.attend_across_segments:
            tokens = rearrange(tokens, "B V (S N) D -> B (V S) N D", S=self._num_segments(batch))
        return tokens.flatten(0, 1) if self.training else tokens

    def targets(self, batch: FrameClip) -> Int64[Tensor, " B"]:
        """The classes; in training, where the head sees one segment at a time, of every segment."""
        labels = class_labels(batch, self.num_classes)
        repeat = self.training and not self.attend_across_segments
        return labels.repeat_interleave(self._num_segments(batch)) if repeat else labels

    def _num_segments(self, batch: FrameClip) -> int:
        frames = batch.images.shape[-4]
        return frames // (self.frames_per_segment or frames)

    def loss(self, prediction: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(prediction, target)

    def predict(self, head: nn.Module, features: Float[Tensor, "B V N D"]) -> Float[Tensor, "B C"]:
        """Class probabilities, averaged over the views."""
        return torch.stack([head(view).float().softmax(-1) for view in features.unbind(1)]).mean(0)

    def metrics(self) -> dict[str, Metric]:
        """Top-1 accuracy, that of always predicting the most frequent class, and perhaps that of the direction."""
        direction: dict[str, Metric] = {"direction_accuracy": OppositeAccuracy()} if self.opposites else {}
        return {"accuracy": TopKAccuracy(), "accuracy_majority": MajorityAccuracy(self.num_classes), **direction}

    def feature_options(self) -> dict[str, Any]:
        """Arguments that decide the tokens."""
        names = ("frames_per_segment", "attend_across_segments", "token_grid", "per_frame")
        return {name: getattr(self, name) for name in names}

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

    float32_heads = False

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

    @torch.no_grad()
    def draw(self, batch: FrameClip) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """Frames of the first clip, and where the query of the chosen probe looks in each."""
        images = batch.images[0] if batch.images.ndim == 6 else batch.images[:1]
        view = len(images) // 2
        clip = replace(batch, images=images[view : view + 1], label=batch.label[:1])
        head: Any = self.heads[(self.selected or 0) * self.repetitions]
        features = self.features(clip)
        maps = head.attention(self._inputs(features.float())[0]).flatten()
        return draw_attention(images[view], maps, self._grid(images.shape[-2:]))

    def _grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of tokens of a frame."""
        patch = int(self.backbone.patch_size)  # type: ignore[arg-type]
        return (self.token_grid or size[0] // patch), (self.token_grid or size[1] // patch)


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

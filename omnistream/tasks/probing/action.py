"""Action recognition on a frozen backbone: a sweep of attentive probes over one pass of features (paper App. C.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from omnistream.backbone import OmniStream
from omnistream.data.batch import FrameClip
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.features import class_labels, clip_tokens, freeze, spatial_views


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
    query_std: float = 0.02
    """Initial spread of the probe's query; see `AttentiveProbe`."""
    activation_checkpointing: bool = False
    """Recompute the self-attention blocks in the backward pass."""

    def __post_init__(self) -> None:
        if not self.lrs or not self.weight_decays or min(self.lrs) <= 0 or min(self.weight_decays) < 0:
            raise ValueError(f"lrs must be positive and weight_decays not negative, at least one each; got {self}")
        if self.query_std <= 0:
            raise ValueError(f"query_std must be positive, got {self.query_std}")

    @property
    def settings(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of every probe."""
        return list(product(self.lrs, self.weight_decays))

    def build(self, embed_dim: int, num_classes: int, num_positions: int | None = None) -> nn.ModuleList:
        """A probe for every setting; see `AttentiveProbe`."""
        return nn.ModuleList(
            AttentiveProbe(
                embed_dim,
                num_classes,
                num_layers=self.num_layers,
                num_heads=self.num_heads,
                activation_checkpointing=self.activation_checkpointing,
                num_positions=num_positions,
                query_std=self.query_std,
            )
            for _ in self.settings
        )


def probe_optimizer(
    probes: Sequence[nn.Module] | nn.ModuleList, config: ProbeConfig, total_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW over all probes, each with its own setting, and a cosine whose first step already has cos(pi / steps).

    Source: facebookresearch/vjepa2 evals/video_classification_frozen (the schedule steps before each iteration).
    """
    groups = [
        {"params": list(probe.parameters()), "lr": lr, "weight_decay": decay}
        for probe, (lr, decay) in zip(probes, config.settings, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min((step + 1) / total_steps, 1.0)))
    )
    return optimizer, schedule


class ActionProbeModule(LightningModule):
    """Attentive probes on the tokens of a strictly frozen backbone.

    All probes see the same features of one backbone pass, and their losses are summed, which trains each as if alone.
    Training uses one view. In validation and test the class probabilities of the spatial crops are averaged; the tokens
    of the temporal segments of one crop are joined before the probe. Logged are the accuracy of every probe and, as
    `accuracy`, the best of them: it is selected on the data it is measured on, as in V-JEPA 2.

    Args:
        backbone: The backbone; put into evaluation mode and never trained.
        num_classes: Classes.
        probe: Shape and settings of the probes.
        frames_per_segment: Frames of a segment (paper: 16); clips may hold several, one after the other, also in
            training. None if a clip is one segment.
        num_crops: Spatial views in validation and test (paper: 3), squares of the clip's shorter side.
        token_grid: Average every frame to this many tokens per side; None keeps all patches.
    """

    def __init__(
        self,
        backbone: OmniStream,
        num_classes: int,
        *,
        probe: ProbeConfig = ProbeConfig(),
        frames_per_segment: int | None = None,
        num_crops: int = 3,
        token_grid: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = freeze(backbone)
        self.config, self.num_classes, self.num_crops = probe, num_classes, num_crops
        self.frames_per_segment, self.token_grid = frames_per_segment, token_grid
        self.probes = probe.build(backbone.embed_dim, num_classes)
        self.accuracies = nn.ModuleList(MulticlassAccuracy(num_classes, average="micro") for _ in self.probes)

    def train(self, mode: bool = True) -> "ActionProbeModule":
        """Training mode for the probes; the backbone always stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _tokens(self, images: Tensor) -> Tensor:
        return clip_tokens(
            self.backbone, images, frames_per_segment=self.frames_per_segment, token_grid=self.token_grid
        )

    def training_step(self, batch: FrameClip, batch_idx: int) -> Tensor:
        """Summed cross-entropy of all probes on the central view."""
        labels = class_labels(batch, self.num_classes)
        tokens = self._tokens(spatial_views(batch.images, 1)[0])
        losses = torch.stack([F.cross_entropy(probe(tokens).float(), labels) for probe in self.probes])
        self.log("train/loss", losses.detach().min(), prog_bar=True, batch_size=len(labels))
        return losses.sum()

    def probabilities(self, batch: FrameClip) -> Float[Tensor, "P B C"]:
        """Class probabilities of every probe, averaged over the spatial views."""
        views = []
        for images in spatial_views(batch.images, self.num_crops):
            tokens = self._tokens(images)
            views.append(torch.stack([probe(tokens).float().softmax(-1) for probe in self.probes]))
        return torch.stack(views).mean(0)

    def validation_step(self, batch: FrameClip, batch_idx: int) -> None:
        """Count the right answers of every probe."""
        labels = class_labels(batch, self.num_classes)
        for accuracy, probability in zip(self.accuracies, self.probabilities(batch), strict=True):
            accuracy.update(probability, labels)  # type: ignore[operator]

    test_step = validation_step

    def _log_accuracies(self, stage: str) -> None:
        values = [accuracy.compute() for accuracy in self.accuracies]  # type: ignore[operator]
        for accuracy in self.accuracies:
            accuracy.reset()  # type: ignore[operator]
        names = [f"{stage}/accuracy_lr{lr:g}_wd{decay:g}" for lr, decay in self.config.settings]
        self.log_dict(dict(zip(names, values, strict=True)), batch_size=1)
        self.log(f"{stage}/accuracy", torch.stack(values).max(), prog_bar=True, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies."""
        self._log_accuracies("val")

    def on_test_epoch_end(self) -> None:
        """Log the accuracies."""
        self._log_accuracies("test")

    def configure_optimizers(self) -> Any:
        """AdamW and a cosine over all steps of the run."""
        # Reading this drops the state of a stateful loader; probes are short and are not resumed inside an epoch.
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = probe_optimizer(self.probes, self.config, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ProbeResult(NamedTuple):
    """How well a probe does.

    `accuracy`: on the evaluated clips, of the setting chosen on held-out training clips. `lr`, `weight_decay`: that
    setting. `chance`: share of the most frequent class among the evaluated clips. `predictions` [N].
    """

    accuracy: float
    lr: float
    weight_decay: float
    chance: float
    predictions: Tensor


def fit_action_probe(
    features: Float[Tensor, "N L D"],
    labels: Int64[Tensor, " N"],
    eval_features: Float[Tensor, "M L D"],
    eval_labels: Int64[Tensor, " M"],
    *,
    num_classes: int,
    config: ProbeConfig = ProbeConfig(num_layers=1, num_heads=4, lrs=(1e-3, 3e-3)),
    position_embedding: bool = False,
    epochs: int = 30,
    batch_size: int = 64,
    holdout: float = 0.2,
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of an attentive probe trained on cached features; seconds on a CPU for small tokens.

    Features are standardised per channel with the training clips' statistics. The setting is chosen on a held-out share
    of the training clips, so that the evaluated clips decide nothing.

    Args:
        features: Tokens of the training clips, as from `cache_features`.
        labels: Their classes.
        eval_features: Tokens of the clips to be judged on.
        eval_labels: Their classes.
        num_classes: Classes.
        config: Shape and settings of the probes.
        position_embedding: Let the probe know the order of the tokens. Off, as published, the features themselves must
            tell time and place; on, time comes from the probe.
        epochs: Passes over the training clips.
        batch_size: Clips per step.
        holdout: Share of the training clips that chooses the setting; not trained on. Ignored for a single setting.
        seed: Of the weights, the split and the order; the global random state is left alone.

    Raises:
        ValueError: If labels do not fit the classes, or too few clips remain for training.
    """
    for values in (labels, eval_labels):
        if len(values) == 0 or int(values.min()) < 0 or int(values.max()) >= num_classes:
            raise ValueError(f"needs clips with labels in [0, {num_classes}); got {values.tolist()[:8]}...")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        positions = features.shape[1] if position_embedding else None
        probes = config.build(features.shape[-1], num_classes, positions)
        order = torch.randperm(len(labels))
        held = round(holdout * len(labels)) if len(probes) > 1 else 0
        chosen, train = order[:held], order[held:]
        if len(train) == 0 or (len(probes) > 1 and held == 0):
            raise ValueError(f"holdout {holdout} of {len(labels)} clips leaves nothing to train on or to choose with")
        mean, std = features[train].mean((0, 1)), features[train].std((0, 1)).clamp_min(1e-6)
        features, eval_features = (features - mean) / std, (eval_features - mean) / std
        _train_probes(probes, features[train], labels[train], config, epochs, batch_size)
    best = max(range(len(probes)), key=lambda i: _right(probes[i], features[chosen], labels[chosen]) if held else 0)
    predictions = _predict(probes[best], eval_features)
    lr, decay = config.settings[best]
    chance = float(torch.bincount(eval_labels).max()) / len(eval_labels)
    return ProbeResult(float((predictions == eval_labels).float().mean()), lr, decay, chance, predictions)


def _train_probes(
    probes: nn.ModuleList, features: Tensor, labels: Tensor, config: ProbeConfig, epochs: int, batch_size: int
) -> None:
    steps = epochs * math.ceil(len(labels) / batch_size)
    optimizer, schedule = probe_optimizer(probes, config, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch_size):
            loss = torch.stack([F.cross_entropy(probe(features[rows]), labels[rows]) for probe in probes]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    probes.eval()


@torch.no_grad()
def _predict(probe: nn.Module, features: Tensor, batch_size: int = 256) -> Tensor:
    return torch.cat([probe(rows).argmax(-1) for rows in features.split(batch_size)])


def _right(probe: nn.Module, features: Tensor, labels: Tensor) -> int:
    return int((_predict(probe, features) == labels).sum())

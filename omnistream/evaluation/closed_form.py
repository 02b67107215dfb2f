"""Probes whose heads are computed from all training features at once: ridge regression, nearest neighbours."""

from typing import Any, Protocol, runtime_checkable

import torch

from omnistream.evaluation.cache import CachedFeatures, FeatureBatch
from omnistream.evaluation.frozen import FrozenProbe


@runtime_checkable
class ClosedFormHead(Protocol):
    """A head that is fitted rather than trained."""

    def fit(self, features: torch.Tensor, target: torch.Tensor) -> None:
        """Set the weights from all training samples."""
        ...


class ClosedFormProbe(FrozenProbe):
    """A `FrozenProbe` without an optimiser: its heads have a `fit`; one epoch of training, in one process.

    Arguments and methods are those of `FrozenProbe`; `loss` is not used.
    """

    automatic_optimization = False

    def on_train_start(self) -> None:
        """Check what only a trainer knows.

        Raises:
            ValueError: If there is more than one process or epoch.
        """
        super().on_train_start()
        if self.trainer.world_size > 1 or self.trainer.max_epochs != 1:
            raise ValueError(
                "the heads of this probe are computed in one pass: set trainer.max_epochs and devices to 1"
            )
        self._seen: list[FeatureBatch] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Collect the features."""
        features, target = self.extract(batch)
        self._seen.append(FeatureBatch(self._inputs(features).cpu(), target.cpu()))

    def on_train_epoch_end(self) -> None:
        """Fit every head."""
        seen, self._seen = CachedFeatures(self._seen), []
        for head in self.heads:
            assert isinstance(head, ClosedFormHead)
            head.fit(seen.features, seen.target)

    def configure_optimizers(self) -> None:
        """No optimizer is needed."""

"""Scores of single classes: their names, and what probes that give every sample one class share."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from omnistream.data.evaluation_samples import source_of
from omnistream.evaluation.frozen import FrozenProbe
from omnistream.evaluation.results import ClassScores
from omnistream.tasks.probing.confusion import confusion_matrix, draw_confusion


def known_class_names(probe: FrozenProbe) -> Sequence[str] | None:
    """Names of the classes, where the test set of a probe's data module knows them."""
    data = None if probe._trainer is None else getattr(probe.trainer, "datamodule", None)
    dataset = source_of(getattr(data, "test", None))
    return getattr(dataset, "class_names", None) or getattr(dataset, "classes", None) or None


def class_names(probe: FrozenProbe, num_classes: int) -> Sequence[str]:
    """Names of the classes of a probe, or their numbers where the test set has other classes or does not name them."""
    known = known_class_names(probe)
    return known if known and len(known) == num_classes else [str(label) for label in range(num_classes)]


class ClassProbe(FrozenProbe):
    """A `FrozenProbe` whose predictions are scores [B, C] and whose targets are classes [B].

    After a test, `confusion` holds all of it: the first of several repetitions of the chosen setting.
    """

    num_classes: int
    confusion: Int64[Tensor, "C C"] | None = None
    """Test samples by true (row) and predicted class, for the chosen setting, over all processes."""

    def on_test_start(self) -> None:
        """Start a new confusion matrix."""
        super().on_test_start()
        self._predicted: list[list[Tensor]] = [[] for _ in self.heads]
        self._true: list[Tensor] = []
        self.confusion = None

    def observe(self, head: int, prediction: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> None:
        """Keep the most likely class."""
        self._predicted[head].append(prediction.argmax(1))
        if head == 0:
            self._true.append(target)

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and count the confusions of the chosen setting."""
        super().on_test_epoch_end()
        assert self.selected is not None
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        chosen = self._predicted[self.selected * self.repetitions]
        self.confusion = confusion_matrix(torch.cat([none, *chosen]), torch.cat([none, *self._true]), self.num_classes)
        self._predicted, self._true = [[] for _ in self.heads], []

    def test_results(self) -> dict[str, Any]:
        """The results, with the accuracy of every class."""
        results = super().test_results()
        if self.confusion is None:
            return results
        counts = self.confusion.sum(1)
        scores = ClassScores.of(
            "accuracy", class_names(self, self.num_classes), self.confusion.diagonal() / counts, counts, "samples"
        )
        return results | {"per_class": scores}

    def draw_results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """The confusion matrix of the classes that are confused most, after a test."""
        if self.confusion is None:
            return {}
        return {"confusion": draw_confusion(self.confusion, class_names(self, self.num_classes))}

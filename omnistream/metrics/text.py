"""Token loss, exact match and word accuracy of generated text, and what a reader without eyes would score."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Num
from torch import Tensor
from torchmetrics import Metric


def unigram_entropy(counts: Num[Tensor, " V"]) -> float:
    """Entropy in nats of the token frequencies: the best loss without any context; 0 if nothing was counted.

    Measured on the evaluated answers themselves it is a lower bound of every context-free model's loss on them.
    """
    frequencies = counts[counts > 0].double()
    frequencies = frequencies / frequencies.sum()
    return float(-(frequencies * frequencies.log()).sum())


def normalize_words(text: str) -> list[str]:
    """Lower-case words without surrounding punctuation."""
    words = (word.strip(".,;:!?\"'()[]") for word in text.lower().split())
    return [word for word in words if word]


def word_accuracy(pred: str, target: str) -> float:
    """Words in common (as multisets) over the larger number of words; 1 if both are empty. In [0, 1]."""
    predicted, true = Counter(normalize_words(pred)), Counter(normalize_words(target))
    longer = max(predicted.total(), true.total())
    return 1.0 if longer == 0 else (predicted & true).total() / longer


class _Mean(Metric):
    """A quotient of two sums over all samples and processes; NaN before any sample."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean so far."""
        return (self.total / self.count).float()


class TokenLoss(_Mean):
    """Mean cross-entropy per answer token in nats, exact over batches of any size. Lower is better."""

    higher_is_better = False

    def update(self, loss: Tensor, count: Tensor) -> None:
        """Add summed losses and the number of tokens they are summed over (any equal shape)."""
        self.total += loss.detach().double().sum()
        self.count += count.double().sum()


class ExactMatch(_Mean):
    """Share of samples whose words all agree, in order. In [0, 1], higher is better."""

    higher_is_better = True

    def update(self, preds: Sequence[str], target: Sequence[str]) -> None:
        """Add predicted and true texts."""
        for pred, true in zip(preds, target, strict=True):
            self.total += float(normalize_words(pred) == normalize_words(true))
            self.count += 1


class WordAccuracy(_Mean):
    """Mean over samples of `word_accuracy`. In [0, 1], higher is better."""

    higher_is_better = True

    def update(self, preds: Sequence[str], target: Sequence[str]) -> None:
        """Add predicted and true texts."""
        for pred, true in zip(preds, target, strict=True):
            self.total += word_accuracy(pred, true)
            self.count += 1

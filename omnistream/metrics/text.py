"""Token loss, exact match and word accuracy of generated text, and the loss of a model that sees no image."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torchmetrics import Metric

from omnistream.metrics.mean import SampleMean


def unigram_entropy(counts: Num[Tensor, " V"]) -> Float[Tensor, ""]:
    """Entropy in nats of the token frequencies: the lowest loss without any context; NaN if nothing was counted.

    Computed on the evaluated answers themselves it is a lower bound of every context-free model's loss on them.
    """
    frequencies = counts[counts > 0].double()
    if len(frequencies) == 0:
        return torch.full((), torch.nan, device=counts.device)
    frequencies = frequencies / frequencies.sum()
    return -(frequencies * frequencies.log()).sum().float()


def token_loss(loss: Float[Tensor, "*S"], count: Num[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean cross-entropy per token in nats, of summed losses and the numbers of tokens they are sums over."""
    return (loss.double().sum() / count.double().sum()).float()


def normalize_words(text: str) -> list[str]:
    """Lower-case words without surrounding punctuation."""
    words = (word.strip(".,;:!?\"'()[]") for word in text.lower().split())
    return [word for word in words if word]


def _matches(preds: Sequence[str], target: Sequence[str]) -> Tensor:
    pairs = zip(preds, target, strict=True)
    return torch.tensor([float(normalize_words(pred) == normalize_words(true)) for pred, true in pairs])


def _overlaps(preds: Sequence[str], target: Sequence[str]) -> Tensor:
    return torch.tensor([_overlap(pred, true) for pred, true in zip(preds, target, strict=True)])


def _overlap(pred: str, target: str) -> float:
    predicted, true = Counter(normalize_words(pred)), Counter(normalize_words(target))
    longer = max(predicted.total(), true.total())
    return 1.0 if longer == 0 else (predicted & true).total() / longer


def exact_match(preds: Sequence[str], target: Sequence[str]) -> Float[Tensor, ""]:
    """Share of texts whose words all agree, in order, regardless of case and punctuation. In [0, 1]."""
    return _matches(preds, target).mean()


def word_accuracy(preds: Sequence[str], target: Sequence[str]) -> Float[Tensor, ""]:
    """Mean over texts of the words in common (as multisets) over the larger number of words. In [0, 1].

    A text is 1 if it and the truth are both empty.
    """
    return _overlaps(preds, target).mean()


class TokenLoss(Metric):
    """Mean cross-entropy per answer token in nats, exact over batches of any size. Lower is better; see `token_loss`.

    Args:
        options: For torchmetrics.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Float[Tensor, "*S"], count: Num[Tensor, "*S"]) -> None:
        """Add summed losses and the number of tokens they are summed over."""
        self.total = self.total + loss.detach().double().sum()
        self.count = self.count + count.double().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN before any token."""
        return (self.total / self.count).float()


class UnigramEntropy(Metric):
    """Entropy in nats of the frequencies of all counted tokens; lower is better, as for a loss.

    See `unigram_entropy`.

    Args:
        vocab_size: Number of different tokens.
        options: For torchmetrics.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    counts: Tensor

    def __init__(self, vocab_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("counts", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counts: Num[Tensor, " V"]) -> None:
        """Add the number of times that each token occurs."""
        self.counts = self.counts + counts.to(self.counts)

    def compute(self) -> Float[Tensor, ""]:
        """The entropy so far; NaN before any token."""
        return unigram_entropy(self.counts)


class ExactMatch(SampleMean):
    """Share of samples whose words all agree, in order. In [0, 1], higher is better; see `exact_match`."""

    higher_is_better = True

    def update(self, preds: Sequence[str], target: Sequence[str]) -> None:
        """Add predicted and true texts."""
        self.add(_matches(preds, target))


class WordAccuracy(SampleMean):
    """Mean over samples of the share of words in common. In [0, 1], higher is better; see `word_accuracy`."""

    higher_is_better = True

    def update(self, preds: Sequence[str], target: Sequence[str]) -> None:
        """Add predicted and true texts."""
        self.add(_overlaps(preds, target))

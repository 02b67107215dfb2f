"""Weighted nearest neighbours: votes of the most similar training samples, and their accuracy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from omnistream.metrics.classification import TopKAccuracy, top_k_accuracy

_ROWS_AT_ONCE = 65536
"""Training samples that queries are compared with at once."""


class Neighbors(NamedTuple):
    """The most similar training samples of some queries, the most similar first."""

    similarity: Float[Tensor, "B K"]
    """Cosine similarity."""
    index: Int64[Tensor, "B K"]
    """Positions in the training set."""


def nearest_neighbors(
    queries: Float[Tensor, "B D"], bank: Float[Tensor, "N D"], k: int, rows_at_once: int = _ROWS_AT_ONCE
) -> Neighbors:
    """The k training samples with the highest cosine similarity, exactly; all of them if there are fewer.

    Args:
        queries: Features of any length.
        bank: Features of the training samples, of length 1.
        k: Number of neighbours.
        rows_at_once: Training samples compared at once, which bounds the memory.
    """
    queries = F.normalize(queries, dim=-1)
    none = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    best = Neighbors(queries.new_zeros(len(queries), 0), none)
    for start in range(0, len(bank), rows_at_once):
        found = queries @ bank[start : start + rows_at_once].T
        places = torch.arange(start, start + found.shape[1], device=found.device).expand_as(found)
        similarity = torch.cat([best.similarity, found], dim=1)
        index = torch.cat([best.index, places], dim=1)
        top = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best = Neighbors(top.values, index.gather(1, top.indices))
    return best


def knn_votes(
    similarity: Float[Tensor, "B K"],
    classes: Int64[Tensor, "B K"],
    num_classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
) -> Float[Tensor, "B S C"]:
    """Scores of the classes for several numbers of neighbours.

    The weights are a softmax of the similarities over all K neighbours that are given; for each k, the weights of the
    first k are summed by class and not normalised again.

    Args:
        similarity: Of the neighbours, the most similar first.
        classes: Of the neighbours.
        num_classes: Classes.
        ks: Numbers of neighbours; one above K counts as K.
        temperature: Divides the similarities.

    Source: facebookresearch/dinov3 dinov3/eval/knn.py.
    """
    weights = (similarity / temperature).softmax(-1)
    empty = weights.new_zeros(len(weights), num_classes)
    return torch.stack([empty.scatter_add(1, classes[:, :k], weights[:, :k]) for k in ks], dim=1)


def knn_accuracy(
    queries: Float[Tensor, "B D"],
    target: Int64[Tensor, " B"],
    bank: Float[Tensor, "N D"],
    bank_target: Int64[Tensor, " N"],
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """Accuracy of the weighted vote of the k nearest training samples; in [0, 1], higher is better.

    Args:
        queries: Features of the samples to classify.
        target: Their classes.
        bank: Features of the training samples.
        bank_target: Their classes.
        k: Number of neighbours.
        temperature: Divides the cosine similarities.
    """
    return top_k_accuracy(_votes(queries, target, bank, bank_target, k, temperature), target)


def _votes(
    queries: Tensor, target: Tensor, bank: Tensor, bank_target: Tensor, k: int, temperature: float
) -> Float[Tensor, "B C"]:
    found = nearest_neighbors(queries, F.normalize(bank, dim=-1), k)
    num_classes = int(torch.cat([target, bank_target]).max()) + 1
    return knn_votes(found.similarity, bank_target[found.index], num_classes, [k], temperature)[:, 0]


class KNNAccuracy(TopKAccuracy):
    """Accuracy of the weighted vote of the k nearest training samples. In [0, 1], higher is better.

    See `knn_accuracy`.

    Args:
        bank: Features of the training samples.
        bank_target: Their classes.
        k: Number of neighbours.
        temperature: Divides the cosine similarities.
        options: For torchmetrics.

    Raises:
        ValueError: If k is not positive, or there is no training sample.
    """

    bank: Tensor
    bank_target: Tensor

    def __init__(
        self,
        bank: Float[Tensor, "N D"],
        bank_target: Int64[Tensor, " N"],
        k: int = 20,
        temperature: float = 0.07,
        **options: Any,
    ) -> None:
        super().__init__(1, **options)
        if k < 1 or len(bank) < 1:
            raise ValueError(f"needs at least one neighbour and one training sample, got k = {k} and {len(bank)}")
        self.neighbors, self.temperature = k, temperature
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("bank_target", bank_target, persistent=False)

    def update(self, preds: Float[Tensor, "B D"], target: Int64[Tensor, " B"]) -> None:
        """Add features and true classes."""
        super().update(_votes(preds, target, self.bank, self.bank_target, self.neighbors, self.temperature), target)

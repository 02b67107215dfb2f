"""A linear probe over space and time on cached frozen tokens, in closed form: no step size, no epochs, a second."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

_PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)


class LinearProbeResult(NamedTuple):
    """`accuracy` on the evaluated clips; `penalty` chosen on held-out training clips; `predictions` [N]."""

    accuracy: float
    penalty: float
    predictions: Tensor


def fit_linear_probe(
    features: Float[Tensor, "N L D"],
    labels: Int64[Tensor, " N"],
    eval_features: Float[Tensor, "M L D"],
    eval_labels: Int64[Tensor, " M"],
    *,
    num_classes: int,
    num_components: int = 8,
    holdout: float = 0.2,
    seed: int = 0,
) -> LinearProbeResult:
    """Accuracy of ridge regression onto one-hot classes from all tokens of a clip side by side.

    Every token is reduced to its first principal components, shared by all tokens, so that the L tokens of a clip give
    L * num_components numbers, each standardised. A weight per place, time and component then reads motion wherever the
    components tell where things are. All statistics come from the training clips; the penalty is chosen on a held-out
    share of them.

    Args:
        features: Tokens of the training clips, as from `cache_features`, in one order for all clips.
        labels: Their classes.
        eval_features: Tokens of the clips to be judged on.
        eval_labels: Their classes.
        num_classes: Classes.
        num_components: Principal components kept per token.
        holdout: Share of the training clips that chooses the penalty.
        seed: Of the split.

    Raises:
        ValueError: If labels do not fit the classes, or the held-out share leaves nothing to train on or to choose
        with.
    """
    for values in (labels, eval_labels):
        if len(values) == 0 or int(values.min()) < 0 or int(values.max()) >= num_classes:
            raise ValueError(f"needs clips with labels in [0, {num_classes}); got {values.tolist()[:8]}...")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen, train = order.split([held := round(holdout * len(labels)), len(labels) - held])
    if not len(chosen) or not len(train):
        raise ValueError(f"holdout {holdout} of {len(labels)} clips leaves nothing to train on or to choose with")
    x, x_eval = _components(features, eval_features, num_components)
    target = F.one_hot(labels, num_classes).double() - 1 / num_classes

    def predict(rows: Tensor, penalty: float, inputs: Tensor) -> Tensor:
        gram = x[rows].T @ x[rows] + penalty * torch.eye(x.shape[1], dtype=x.dtype)
        return (inputs @ torch.linalg.solve(gram, x[rows].T @ target[rows])).argmax(-1)

    right = [(predict(train, penalty, x[chosen]) == labels[chosen]).sum() for penalty in _PENALTIES]
    penalty = _PENALTIES[int(torch.stack(right).argmax())]
    predictions = predict(order, penalty, x_eval)
    return LinearProbeResult(float((predictions == eval_labels).double().mean()), penalty, predictions)


def _components(features: Tensor, eval_features: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """Standardised principal components of all tokens, [N, L * num_components], float64."""
    features, eval_features = features.double(), eval_features.double()
    mean, std = features.mean((0, 1)), features.std((0, 1)).clamp_min(1e-6)
    features, eval_features = (features - mean) / std, (eval_features - mean) / std
    covariance = torch.einsum("n l d, n l e -> d e", features, features)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -num_components:]
    x, x_eval = (features @ axes).flatten(1), (eval_features @ axes).flatten(1)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    return (x - mean) / std, (x_eval - mean) / std

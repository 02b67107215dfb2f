"""A linear classifier over space and time on frozen tokens, in closed form: no step size and no epochs."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)


class RidgeClassifier(nn.Module):
    """Ridge regression onto one-hot classes from the concatenated tokens of a clip.

    Every token is reduced to its first principal components, shared by all tokens, so that the L tokens of a clip give
    L * num_components numbers, each standardised. With a weight per position, time and component it can detect motion
    if the components encode positions. All statistics come from the training clips; the penalty is chosen on a held-out
    share of them, and the weights are then computed from all.

    Args:
        num_classes: Classes.
        num_components: Principal components kept per token.
        holdout: Share of the training clips that chooses the penalty.
        seed: Of that share.
    """

    mean: Tensor
    std: Tensor
    axes: Tensor
    """Principal axes of standardised tokens, [D, K]."""
    component_mean: Tensor
    component_std: Tensor
    weight: Tensor
    """[L * K, C]"""
    penalty: Tensor
    """The chosen one of `PENALTIES`."""

    def __init__(self, num_classes: int, num_components: int = 8, holdout: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        self.num_classes, self.num_components = num_classes, num_components
        self.holdout, self.seed = holdout, seed
        for name in ("mean", "std", "axes", "component_mean", "component_std", "weight", "penalty"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def forward(self, features: Float[Tensor, "B L D"]) -> Float[Tensor, "B C"]:
        """Scores of the classes.

        Raises:
            RuntimeError: Before `fit`.
        """
        if self.weight.numel() == 0:
            raise RuntimeError("this classifier was not fitted; call fit, or load a checkpoint in which it was")
        return (self._inputs(features) @ self.weight).float()

    def fit(self, features: Float[Tensor, "N L D"], target: Int64[Tensor, " N"]) -> None:
        """Set the weights.

        Args:
            features: Tokens of the training clips, in one order for all clips.
            target: Their classes.

        Raises:
            ValueError: If the classes are out of range, or the held-out share leaves nothing to train on or to choose
                with.
        """
        if len(target) == 0 or int(target.min()) < 0 or int(target.max()) >= self.num_classes:
            raise ValueError(f"needs clips with labels in [0, {self.num_classes}); got {target.tolist()[:8]}...")
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(self.seed))
        chosen, train = order.split([held := round(self.holdout * len(target)), len(target) - held])
        if not len(chosen) or not len(train):
            raise ValueError(
                f"holdout {self.holdout} of {len(target)} clips leaves nothing to train on or to choose with"
            )
        device = self.weight.device
        self._fit_components(features)
        x = self._inputs(features)
        wanted = F.one_hot(target, self.num_classes).double() - 1 / self.num_classes

        def solve(rows: Tensor, penalty: float) -> Tensor:
            gram = x[rows].T @ x[rows] + penalty * torch.eye(x.shape[1], dtype=x.dtype)
            return torch.linalg.solve(gram, x[rows].T @ wanted[rows])

        right = [((x[chosen] @ solve(train, penalty)).argmax(-1) == target[chosen]).sum() for penalty in PENALTIES]
        self.penalty = torch.tensor(PENALTIES[int(torch.stack(right).argmax())], dtype=torch.float64)
        self.weight = solve(order, float(self.penalty))
        self.to(device)

    def _fit_components(self, features: Tensor) -> None:
        """Set the statistics on the device of the features."""
        features = features.double()
        self.mean, self.std = features.mean((0, 1)), features.std((0, 1)).clamp_min(1e-6)
        tokens = (features - self.mean) / self.std
        covariance = torch.einsum("n l d, n l e -> d e", tokens, tokens)
        self.axes = torch.linalg.eigh(covariance).eigenvectors[:, -self.num_components :]
        components = (tokens @ self.axes).flatten(1)
        self.component_mean, self.component_std = components.mean(0), components.std(0).clamp_min(1e-6)

    def _inputs(self, features: Tensor) -> Tensor:
        """Standardised principal components of all tokens, [N, L * K], float64."""
        components = ((features.double() - self.mean) / self.std @ self.axes).flatten(1)
        return (components - self.component_mean) / self.component_std

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in dict(self.named_buffers(recurse=False)):  # their sizes are those of the data it was fitted to
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(value, device=self.weight.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

"""Batch normalisation of frozen features, over all processes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omnistream import distributed


class FeatureBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics in training are those of the batches of all processes together, on any device.

    Its input needs no gradient, so the statistics are constants: one sum over processes per pass is exact, where
    `nn.SyncBatchNorm` also communicates in the backward pass, and only runs on accelerators. In one process this is
    `BatchNorm2d`.
    """

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """Normalised features.

        Raises:
            RuntimeError: If the features need a gradient.
        """
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        if x.requires_grad:
            raise RuntimeError("FeatureBatchNorm is for frozen features: its statistics pass no gradient on")
        mean, variance, count = self._statistics(x)
        self._update_running(mean, variance * count / (count - 1))
        scale = (variance + self.eps).rsqrt()
        normalised = (x - mean.to(x)[:, None, None]) * scale.to(x)[:, None, None]
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and biased variance [D] and number of values per channel, over all processes."""
        rows = x.double()
        own = torch.cat([rows.sum((0, 2, 3)), rows.square().sum((0, 2, 3)), rows.new_tensor([x[:, 0].numel()])])
        total = distributed.all_reduce(own)
        mean, squares = (total[:-1] / total[-1]).chunk(2)
        return mean, (squares - mean.square()).clamp_min(0), total[-1]

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        """As `BatchNorm2d` with a fixed momentum; the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)

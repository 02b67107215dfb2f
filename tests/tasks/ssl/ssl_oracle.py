"""Inputs of the recorded values of the official DINOv3 losses: sin(a * n + b) over the flat index n."""

import math

import torch

TEMPERATURE = 0.07


def sines(*shape: int, a: float, b: float) -> torch.Tensor:
    """Computed in float64, then float32."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(a * index + b).float().reshape(shape)


# Targets of sines(4, 6; 0.7, 0.3) at temperature 0.07 after three iterations.
SINKHORN = torch.tensor(
    [
        [0.0014601, 0.2816161, 0.3348922, 0.3820207, 0.0000110, 0.0000000],
        [0.0000000, 0.0000000, 0.0000000, 0.0009187, 0.4995338, 0.4995475],
        [0.9999913, 0.0000087, 0.0000000, 0.0000000, 0.0000000, 0.0000000],
        [0.0024420, 0.3841785, 0.3308767, 0.2824956, 0.0000072, 0.0000000],
    ]
)

# Masked patches of four crops with five tokens each.
MASKS = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 1]]).bool().view(4, 1, 1, 5)
PATCH_TARGETS = torch.tensor(
    [
        [0, 0.0000064, 0.3248588, 0.6750920, 0.0000427, 0],
        [0, 0, 0, 0.0000270, 0.3486642, 0.6513088],
        [0, 0, 0, 0.0001079, 0.6519976, 0.3478945],
        [0.9993716, 0.0002665, 0, 0, 0, 0.0003617],
        [0.0000117, 0.6583281, 0.3416539, 0.0000064, 0, 0],
        [0.9968871, 0.0001348, 0, 0, 0, 0.0029782],
    ]
)


def close(actual: torch.Tensor, expected: object, tolerance: float = 1e-5) -> None:
    """The recorded values have six or seven digits after the point."""
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected).to(actual), atol=tolerance, rtol=0)

"""Sinkhorn-Knopp centering of teacher logits in the log domain, over all processes, without holding all logits at once.

With X = logits / temperature, start at u = 0 and repeat: v_k = logsumexp over samples of (X_bk - u_b), then
u_b = logsumexp over prototypes of (X_bk - v_k). The targets are exp(X_bk - u_b - v_k), that is the softmax over
prototypes of X - v. Only v is kept, so X may be recomputed chunk by chunk. Nothing overflows for any logits.

Source: facebookresearch/dinov3: dinov3/loss/dino_clstoken_loss.py, ibot_patch_loss.py (there with plain exponentials;
the constant factors it divides by cancel).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.distributed import all_reduce


@torch.no_grad()
def prototype_potentials(
    chunks: Sequence[Callable[[], Float[Tensor, "_ K"]]], temperature: float, num_iterations: int = 3
) -> Float[Tensor, " K"]:
    """The potentials v, the same in every process; `targets` turns them into probabilities.

    Every process must call this, also without samples: each iteration contains collectives.

    Args:
        chunks: Functions that return the logits of some samples of this process, at least one, perhaps with no rows;
            called `num_iterations` times each.
        temperature: Divides the logits.
        num_iterations: Pairs of normalisations.

    Raises:
        ValueError: If there are no iterations or no chunks.
    """
    if num_iterations < 1 or not chunks:
        raise ValueError(f"needs at least one iteration and one chunk, got {num_iterations} and {len(chunks)}")
    potentials: Tensor | None = None
    for _ in range(num_iterations):
        pooled: Tensor | None = None
        for chunk in chunks:
            scaled = _scale(chunk(), temperature)
            if potentials is not None:
                scaled = scaled - torch.logsumexp(scaled - potentials, dim=1, keepdim=True)
            part = torch.logsumexp(scaled, dim=0)
            pooled = part if pooled is None else torch.logaddexp(pooled, part)
        assert pooled is not None
        potentials = _logsumexp_over_processes(pooled)
    assert potentials is not None
    return potentials


def targets(logits: Float[Tensor, "B K"], potentials: Float[Tensor, " K"], temperature: float) -> Float[Tensor, "B K"]:
    """Probabilities of any of the samples that the potentials were computed from; each row sums to 1."""
    return torch.softmax(_scale(logits, temperature) - potentials, dim=1)


@torch.no_grad()
def sinkhorn_knopp(logits: Float[Tensor, "B K"], temperature: float, num_iterations: int = 3) -> Float[Tensor, "B K"]:
    """Targets of this process's samples, balanced over the prototypes among the samples of all processes."""
    return targets(logits, prototype_potentials([lambda: logits], temperature, num_iterations), temperature)


def _scale(logits: Tensor, temperature: float) -> Tensor:
    """In float32 at least, also under autocast."""
    return (logits if logits.dtype == torch.float64 else logits.float()) / temperature


def _logsumexp_over_processes(value: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    largest = all_reduce(value, "max")
    largest = torch.where(largest.isfinite(), largest, 0.0)  # no samples anywhere: -inf stays -inf instead of NaN
    return largest + all_reduce(torch.exp(value - largest)).log()

"""Sinkhorn-Knopp centering of teacher logits in the log domain, over all processes, without holding all logits at once.

With X = logits / temperature, start at u = 0 and repeat: v_k = logsumexp over samples of (X_bk - u_b), then
u_b = logsumexp over prototypes of (X_bk - v_k). The targets are exp(X_bk - u_b - v_k); every row sums to 1. Only the
potentials u and v are kept, so X may be recomputed chunk by chunk. Nothing overflows, whatever the logits.

Source: facebookresearch/dinov3: dinov3/loss/dino_clstoken_loss.py, ibot_patch_loss.py (there with plain exponentials;
the constant factors it divides by cancel).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from omnistream.distributed import all_reduce


@torch.no_grad()
def sinkhorn_potentials(
    chunks: Sequence[Callable[[], Float[Tensor, "_ K"]]], temperature: float, num_iterations: int = 3
) -> tuple[Float32[Tensor, " B"], Float32[Tensor, " K"]]:
    """Potentials u of the samples and v of the prototypes.

    Every process must call this, also one without samples: it joins one sum and one maximum per iteration.

    Args:
        chunks: Functions that return the logits of consecutive samples of this process, at least one, perhaps with no
            rows; called `num_iterations + 1` times each.
        temperature: Divides the logits.
        num_iterations: Pairs of normalisations.

    Returns:
        u for the samples of this process in order, and v, the same in every process.
    """
    if num_iterations < 1 or not chunks:
        raise ValueError(f"needs at least one iteration and one chunk, got {num_iterations} and {len(chunks)}")
    potentials: list[Tensor] = []
    prototype: Tensor | None = None
    for iteration in range(num_iterations + 1):
        potentials, pooled = [], None
        for chunk in chunks:
            logits = chunk().float() / temperature
            u = logits.new_zeros(len(logits)) if prototype is None else torch.logsumexp(logits - prototype, dim=1)
            potentials.append(u)
            if iteration < num_iterations:
                part = torch.logsumexp(logits - u.unsqueeze(1), dim=0)
                pooled = part if pooled is None else torch.logaddexp(pooled, part)
        if pooled is not None:
            prototype = _logsumexp_over_processes(pooled)
    assert prototype is not None
    return torch.cat(potentials), prototype


def _logsumexp_over_processes(value: Float32[Tensor, " K"]) -> Float32[Tensor, " K"]:
    largest = all_reduce(value, "max")
    largest = torch.where(largest.isfinite(), largest, 0.0)  # no samples anywhere: -inf stays -inf instead of NaN
    return largest + all_reduce(torch.exp(value - largest)).log()


@torch.no_grad()
def sinkhorn_knopp(logits: Float[Tensor, "B K"], temperature: float, num_iterations: int = 3) -> Float32[Tensor, "B K"]:
    """Targets of this process's samples, balanced over the prototypes among the samples of all processes."""
    u, v = sinkhorn_potentials([lambda: logits], temperature, num_iterations)
    return torch.exp(logits.float() / temperature - u.unsqueeze(1) - v)

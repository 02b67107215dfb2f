"""The patch-level loss: the student predicts the prototype of masked patches.

One 16-frame view at 512 pixels has about 13,000 masked patches; at 65,536 prototypes their float32 logits take 3.2 GiB,
and training would hold several such arrays. Everything here therefore works on chunks of patches: the teacher's
targets are kept as Sinkhorn potentials and formed when needed, and the student's logits are recomputed in the backward
pass.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import reduce, repeat
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from omnistream.tasks.ssl import sinkhorn


@dataclass(frozen=True)
class PatchTargets:
    """Teacher assignments of M masked patches in factored form.

    Attributes:
        bottleneck: [M, d] unit-length features.
        prototypes: [K, d].
        potentials: float32 [K], of the prototypes.
        temperature: Of the teacher.
    """

    bottleneck: Tensor
    prototypes: Tensor
    potentials: Tensor
    temperature: float

    def probabilities(self, rows: slice) -> Float32[Tensor, "M K"]:
        """Targets of some patches; each row sums to 1."""
        return sinkhorn.targets(F.linear(self.bottleneck[rows], self.prototypes), self.potentials, self.temperature)


@torch.no_grad()
def patch_targets(
    bottleneck: Float[Tensor, "M d"],
    prototypes: Float[Tensor, "K d"],
    temperature: float,
    num_iterations: int = 3,
    chunk_size: int = 1024,
) -> PatchTargets:
    """Sinkhorn-Knopp over the masked patches of all processes; to be called inside the teacher head's forward pass.

    Every process must call it, also one without masked patches.

    Args:
        bottleneck: Teacher features of the masked patches of this process.
        prototypes: Of the teacher head.
        temperature: Of the teacher.
        num_iterations: Of Sinkhorn-Knopp.
        chunk_size: Patches per chunk of logits.
    """
    rows = _chunks(len(bottleneck), chunk_size)
    logits = [lambda part=part: F.linear(bottleneck[part], prototypes) for part in rows]
    potentials = sinkhorn.prototype_potentials(logits, temperature, num_iterations)
    # The copy outlives the call; a sharded head frees its gathered prototypes at the end of it.
    return PatchTargets(bottleneck, prototypes.detach().clone(), potentials, temperature)


def mask_weights(masks: Bool[Tensor, "C T h w"]) -> Float32[Tensor, " M"]:
    """1 / (masked patches of the crop) for every masked patch, in flat order."""
    counts = reduce(masks.float(), "c t h w -> c", "sum").clamp_min(1.0)
    return repeat(1 / counts, "c -> c t h w", t=masks.shape[1], h=masks.shape[2], w=masks.shape[3])[masks]


def ibot_loss(
    bottleneck: Float[Tensor, "M d"],
    prototypes: Float[Tensor, "K d"],
    targets: PatchTargets,
    weights: Float[Tensor, " M"],
    num_crops: int,
    temperature: float = 0.1,
    chunk_size: int = 1024,
) -> Float[Tensor, ""]:
    """Cross-entropy averaged over the masked patches of each crop, then over all crops, also those without a mask.

        loss = 1 / num_crops * sum over crops of  1 / n_crop * sum over its masked patches of  CE(target, student)

    To be called inside the student head's forward pass. Logits are computed chunk by chunk and again in the backward
    pass; the result does not depend on the chunk size.

    Args:
        bottleneck: Student features of the masked patches.
        prototypes: Of the student head.
        targets: From `patch_targets`, same patches.
        weights: From `mask_weights`.
        num_crops: Global crops in the local batch.
        temperature: Of the student.
        chunk_size: Patches per chunk of logits.

    Source: paper eq. 12; facebookresearch/dinov3: dinov3/loss/ibot_patch_loss.py.
    """

    def part(features: Tensor, rows: slice) -> Tensor:
        return (
            patch_cross_entropy(features, prototypes, targets.probabilities(rows), temperature) * weights[rows]
        ).sum()

    # Even without masked patches one empty chunk runs, so that the head's parameters stay in the graph.
    parts = [
        checkpoint(part, bottleneck[rows], rows, use_reentrant=False, preserve_rng_state=False)
        for rows in _chunks(len(bottleneck), chunk_size)
    ]
    return torch.stack(parts).sum() / num_crops


def patch_cross_entropy(
    features: Float[Tensor, "M d"],
    prototypes: Float[Tensor, "K d"],
    probabilities: Float[Tensor, "M K"],
    temperature: float,
) -> Float32[Tensor, " M"]:
    """Cross-entropy of each patch; targets sum to 1, so that the normaliser of the softmax enters once."""
    logits = F.linear(features, prototypes).float() / temperature
    return torch.logsumexp(logits, dim=1) - (probabilities * logits).sum(dim=1)


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, max(length, 1), size)]

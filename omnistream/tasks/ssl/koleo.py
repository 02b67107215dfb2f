"""Keeps the CLS features of different samples apart, which prevents collapse."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from omnistream.distributed import all_gather, rank, world_size

_EPS = 1e-8


def koleo_loss(
    features: Float[Tensor, "B D"],
    *,
    num_neighbours: int = 1,
    across_processes: bool = False,
    group_size: int | None = None,
) -> Float[Tensor, ""]:
    """Minus the mean logarithm of the distance to the nearest other sample, on the unit sphere.

    Negative values are normal (distances above 1). With fewer than two samples to compare it is 0: a nearest neighbour
    does not exist. Always computed in float32; bfloat16 shifts the value by 10 % and float16 overflows.

    Args:
        features: Of one crop; do not mix two crops of one sample.
        num_neighbours: Nearest samples that are averaged over.
        across_processes: Look for neighbours in the batches of all processes; all must have equally many rows.
        group_size: With `across_processes`, cut the global batch into consecutive groups of this many rows and look
            only inside the group; a multiple of the local batch that divides the global batch. None: the whole batch.

    Raises:
        ValueError: If `group_size` does not fit the batches.

    Source: paper eq. 13; facebookresearch/dinov3: dinov3/loss/koleo_loss.py.
    """
    with torch.autocast(features.device.type, enabled=False):
        local = F.normalize(features.float(), dim=-1, eps=_EPS)
        others, offset = _candidates(local, group_size) if across_processes else (local, 0)
        if len(others) < 2:
            return (local * 0).sum()
        with torch.no_grad():
            similarity = local @ others.T
            # Below -1, so that a sample whose only neighbour is its antipode does not choose itself.
            similarity.diagonal(offset).fill_(-2.0)
            nearest = similarity.topk(min(num_neighbours, len(others) - 1), dim=1).indices  # [B, n]
        distance = F.pairwise_distance(local.unsqueeze(1), others[nearest], eps=_EPS)
        return -torch.log(distance + _EPS).mean()


def _candidates(local: Float[Tensor, "B D"], group_size: int | None) -> tuple[Float[Tensor, "A D"], int]:
    """Rows of this process's group, and the place of its own first row among them."""
    size, total = len(local), len(local) * world_size()
    group = total if group_size is None else group_size
    if group % size or total % group:
        raise ValueError(f"KoLeo group size {group} must be a multiple of the local batch {size} and divide {total}")
    first = rank() * size
    start = first // group * group
    return all_gather(local)[start : start + group], first - start

"""The image- and clip-level loss: the student's CLS predicts the teacher's prototype assignment of another view."""

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor


def pool_frames(cls: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
    """Mean over the frames in float32, before the head: one summary per clip; a single image is unchanged.

    Source: paper Appendix A.
    """
    return reduce(cls.float(), "b t d -> b d", "mean")


def dino_loss(
    student_logits: Float[Tensor, "S B K"],
    teacher_probabilities: Float[Tensor, "V B K"],
    temperature: float = 0.1,
    ignore_diagonal: bool = False,
) -> Float[Tensor, ""]:
    """Cross-entropy averaged over samples and (student view, teacher view) pairs, in float32 also under autocast.

        loss = mean over pairs (s, t) and samples b of  - sum_k p[t, b, k] * log_softmax(logits[s, b] / temperature)[k]

    Args:
        student_logits: Of S views.
        teacher_probabilities: Of V views, each row summing to 1.
        temperature: Of the student.
        ignore_diagonal: Leave out the pairs of a view with itself (both networks saw the same global crop).

    Raises:
        ValueError: If no pair is left.

    Source: paper eq. 11; facebookresearch/dinov3: dinov3/loss/dino_clstoken_loss.py. The mean of equal local batches is
    the mean over all processes once gradients are averaged.
    """
    num_student, num_samples, _ = student_logits.shape
    num_pairs = num_student * len(teacher_probabilities)
    if ignore_diagonal:
        num_pairs -= min(num_student, len(teacher_probabilities))
    if num_pairs < 1:
        raise ValueError("no pair of a student and a teacher view is left; use more than one global crop")
    with torch.autocast(student_logits.device.type, enabled=False):  # else the product would be in bfloat16
        log_probabilities = F.log_softmax(student_logits.float() / temperature, dim=-1)
        pairs = -torch.einsum("sbk,tbk->st", log_probabilities, teacher_probabilities.float())
    if ignore_diagonal:
        pairs = pairs.masked_fill(torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device), 0.0)
    return pairs.sum() / (num_pairs * num_samples)


def pair_shares(num_global: int, num_local: int) -> tuple[float, float]:
    """Shares of the global and the local term in the DINO loss: as many parts as they have pairs.

    Source: facebookresearch/dinov3: dinov3/train/ssl_meta_arch.py (own view ignored among the global ones).
    """
    global_pairs, local_pairs = num_global * (num_global - 1), num_global * num_local
    return global_pairs / (global_pairs + local_pairs), local_pairs / (global_pairs + local_pairs)

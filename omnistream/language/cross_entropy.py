"""Cross-entropy over a large vocabulary, without all logits in memory at once."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chunked_cross_entropy(
    hidden: Float[Tensor, "N E"], weight: Float[Tensor, "V E"], target: Int64[Tensor, " N"], chunk_size: int = 1024
) -> Float32[Tensor, " N"]:
    """Cross-entropy of every row, with at most `chunk_size` rows of logits in memory at a time.

    Logits and loss are float32 also under autocast, forward and backward. Each chunk is recomputed in the backward
    pass: with Qwen3's 151,936 rows the logits would be the largest tensor of the whole step.

    Args:
        hidden: Final hidden states at positions whose next token is predicted.
        weight: The output embedding.
        target: The next tokens.
        chunk_size: Rows per chunk.
    """

    def losses(rows: Tensor, vocabulary: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return F.cross_entropy(F.linear(rows.float(), vocabulary.float()), labels, reduction="none")

    chunks = zip(hidden.split(chunk_size), target.split(chunk_size), strict=True)
    return torch.cat([checkpoint(losses, rows, weight, labels, use_reentrant=False) for rows, labels in chunks])

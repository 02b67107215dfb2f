"""The result of `omnistream predict`: the backbone's features of every clip."""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class ClipFeatures(NamedTuple):
    """Features of one clip, on the CPU.

    Attributes:
        name: Name of the clip in its data set.
        cls: One vector per frame.
        last: Patch features of the last layer, normalised.
    """

    name: str
    cls: Float[Tensor, "T D"]
    last: Float[Tensor, "T h w D"]


def predict_features(backbone: nn.Module, batch: dict[str, Any]) -> dict[str, list[ClipFeatures]]:
    """Features of the clips in a batch, by source.

    Args:
        backbone: In evaluation mode.
        batch: Batches by the name of their source. Crops for self-supervision are not clips and are left out.
    """
    found = {}
    for source, part in batch.items():
        if not hasattr(part, "images"):
            continue
        output = backbone(backbone.normalize(part.images))  # type: ignore[operator]
        rows = zip(part.name, output.cls.cpu(), output.last.cpu(), strict=True)
        found[source] = [ClipFeatures(*row) for row in rows]
    return found

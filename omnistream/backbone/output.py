"""What the backbone returns."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

NUM_REGISTERS = 4
"""Register tokens per frame."""


@dataclass
class BackboneOutput:
    """Features of B streams of T frames.

    Attributes:
        patches: Outputs of the requested blocks, not normalised: {layer: [B, T, h, w, D]}.
        last: Patch tokens after the final norm, [B, T, h, w, D].
        cls: One summary per frame after the final norm, [B, T, D].
        registers: The four register tokens after the final norm, [B, T, 4, D].
        camera: The camera token after the final norm, [B, T, D]; None if it was not requested.
        heads: Results of the heads attached to a stream, by name; empty otherwise.
    """

    patches: dict[int, Tensor]
    last: Tensor
    cls: Tensor
    registers: Tensor
    camera: Tensor | None
    heads: dict[str, Any] = field(default_factory=dict)

"""What may be attached to a stream: heads that read the features of each frame as it comes."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from omnistream.backbone.output import BackboneOutput


@runtime_checkable
class StreamHead(Protocol):
    """Turns the features of the latest frames into results, frame by frame.

    A head must not mix frames or remember any: a session may hand it one frame or many at once.
    """

    @property
    def layers(self) -> Sequence[int]:
        """Blocks (0-based) whose patch outputs it reads."""
        ...

    @property
    def camera_token(self) -> bool:
        """Whether it reads the camera token. The aspect ratio of the frames is told to the token then."""
        ...

    def __call__(self, output: BackboneOutput, size: tuple[int, int]) -> Any:
        """Results of S frames of B streams; tensors start with the axes B and S.

        Args:
            output: Features, with at least the layers asked for.
            size: Height and width of the frames in pixels.
        """
        ...


def requested_layers(layers: Sequence[int], heads: Mapping[str, StreamHead]) -> tuple[int, ...]:
    """All blocks that the caller or a head reads, sorted."""
    return tuple(sorted({*layers, *(layer for head in heads.values() for layer in head.layers)}))


def read_heads(
    output: BackboneOutput, heads: Mapping[str, StreamHead], layers: Sequence[int], size: tuple[int, int]
) -> None:
    """Put every head's results into `output.heads`, then keep only the patches of `layers`."""
    output.heads = {name: head(output, size) for name, head in heads.items()}
    output.patches = {layer: output.patches[layer] for layer in layers}

"""Heads that are attached to a stream and read the features of each frame."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from omnistream.backbone.output import BackboneOutput


@runtime_checkable
class StreamHead(Protocol):
    """Turns the features of the latest frames into results, frame by frame.

    A head must neither mix frames nor keep state: a session may pass it one frame or many at once.
    """

    @property
    def layers(self) -> Sequence[int]:
        """Blocks (0-based) whose patch outputs it reads."""
        ...

    @property
    def camera_token(self) -> bool:
        """Whether it reads the camera token, to which the aspect ratio of the frames is then added."""
        ...

    def __call__(self, output: BackboneOutput, size: tuple[int, int]) -> Any:
        """Results for S frames of B streams; tensors begin with the axes B and S.

        Args:
            output: Features, with at least the requested layers.
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

"""What an evaluation requires of a model, this library's or another: features of frames, or geometry of a stream."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.backbone import BackboneOutput


@runtime_checkable
class Backbone(Protocol):
    """A model whose frozen features are evaluated: `OmniStream`, or an adapter such as `TimmBackbone`.

    It is an `nn.Module`; a clip is [B, T, 3, H, W] and an image is T = 1.
    """

    embed_dim: int
    """Width D of the features."""
    patch_size: int
    """Side of a patch in pixels; image sides are multiples of it."""
    num_layers: int
    """Blocks; `layers` counts them from 0."""

    def normalize(self, images: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Images as the weights expect them."""
        ...

    def __call__(self, images: Float[Tensor, "B T 3 H W"], *, layers: Sequence[int] = ()) -> BackboneOutput:
        """Features of whole clips, with the patch outputs of the blocks in `layers`."""
        ...


@runtime_checkable
class FrameGeometry(Protocol):
    """Geometry of one frame of a stream: any object with these attributes, such as a frame of `ClipGeometry`."""

    @property
    def depth(self) -> Float[Tensor, "H W"]:
        """z-depth along the optical axis, in the model's own scale and size."""
        ...

    @property
    def camera_to_world(self) -> Float[Tensor, "4 4"]:
        """OpenCV axes; the world is any frame that stays the same over the stream."""
        ...

    @property
    def intrinsics(self) -> Float[Tensor, "3 3"]:
        """K in pixels of `depth`; pixel i is centred at i + 0.5."""
        ...


@runtime_checkable
class StreamingGeometry(Protocol):
    """A model that predicts the geometry of a video frame by frame, without access to later frames."""

    def reset(self) -> None:
        """Start a new video."""
        ...

    def step(self, images: UInt8[Tensor, "S 3 H W"]) -> Sequence[FrameGeometry]:
        """Geometry of the next S frames."""
        ...

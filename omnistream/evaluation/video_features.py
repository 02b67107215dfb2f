"""Patch features of whole videos, frame by frame: as a stream with memory, or each frame by itself."""

from collections.abc import Iterator
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.session import Session
from omnistream.evaluation.models import Backbone

Encoding = Literal["auto", "stream", "frames", "clip"]


@runtime_checkable
class StreamingBackbone(Protocol):
    """A backbone that remembers past frames, such as `OmniStream`."""

    def stream(self, options: SessionOptions) -> Session:
        """Open a session that encodes frames as they come."""
        ...


def encode_video(
    backbone: Backbone,
    images: UInt8[Tensor, "T 3 H W"],
    *,
    encoding: Encoding = "auto",
    frames_per_step: int = 1,
    session: SessionOptions = SessionOptions(),  # noqa: B008 (frozen)
) -> Iterator[Float[Tensor, "h w D"]]:
    """Patch tokens of the last layer, after the final norm, of one frame after the other.

    Args:
        backbone: Any `Backbone`.
        images: The frames.
        encoding: `stream`: all frames are one stream through a key-value cache. `frames`: each frame is a clip of its
            own. `clip`: all frames are one clip, for models that look at clips. `auto`: `clip` if the backbone has a
            `sliding_window`, `stream` if it can, else `frames`.
        frames_per_step: Frames encoded at once, except for `clip`; features do not depend on it, memory does.
        session: What a stream remembers.

    Raises:
        ValueError: If the backbone has no streams or joins frames of a clip, or `frames_per_step` is not positive.
    """
    if frames_per_step < 1:
        raise ValueError(f"frames_per_step must be at least 1, got {frames_per_step}")
    if encoding == "auto" and getattr(backbone, "sliding_window", None) is not None:
        encoding = "clip"
    elif encoding == "auto":
        encoding = "stream" if isinstance(backbone, StreamingBackbone) else "frames"
    if encoding == "stream":
        if not isinstance(backbone, StreamingBackbone):
            raise ValueError(f"{type(backbone).__name__} has no streams; set encoding to frames or clip")
        stream = backbone.stream(session)
        for part in images.split(frames_per_step):
            yield from stream.step(backbone.normalize(part[None])).last[0]
    elif encoding == "frames":
        for part in images.split(frames_per_step):
            yield from backbone(backbone.normalize(part[:, None])).last[:, 0]
    else:
        features = backbone(backbone.normalize(images[None])).last[0]
        if len(features) != len(images):
            raise ValueError(f"features of every frame are needed; the model gives {len(features)} for {len(images)}")
        yield from features

"""Frame-causal attention without a mask.

Token u of frame t sees every token of frames <= t (paper Eq. 3-4). A dense mask would need (T P)^2 entries and rule out
the fast kernels. Each frame of a clip attends to the prefix that it may see, or FlexAttention is used
(`clip_attention`); frames of a stream attend to a cache that holds what is visible (`kv_cache`). Both give the same
result.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from omnistream.backbone.clip_attention import AttentionChoice, clip_attention


@runtime_checkable
class Context(Protocol):
    """Computes the attention of new tokens, given what came before; blocks call it."""

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B heads N d"],
        key: Float[Tensor, "B heads N d"],
        value: Float[Tensor, "B heads N d"],
    ) -> Float[Tensor, "B heads N d"]:
        """Attention output for the new tokens from their rotated queries and keys."""
        ...


def check_window(window: int | None, sink: int) -> None:
    """Check that a window can hold its sink.

    Raises:
        ValueError: If `window` < 1, `sink` < 0 or `sink` > `window`.
    """
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1 (None remembers all frames), got {window}")
    if sink < 0 or (window is not None and sink > window):
        raise ValueError(f"sink must be between 0 and the window ({window}), got {sink}")


class ClipContext:
    """Attention within one whole clip whose first frame starts the stream.

    Args:
        num_frames: T.
        window: Remembered frames; None for all.
        sink: First frames that are never forgotten.
        choice: Kernel; see `clip_attention`.
    """

    def __init__(
        self, num_frames: int, window: int | None = None, sink: int = 1, choice: AttentionChoice = "auto"
    ) -> None:
        check_window(window, sink)
        self.num_frames, self.window, self.sink, self.choice = num_frames, window, sink, choice

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B heads N d"],
        key: Float[Tensor, "B heads N d"],
        value: Float[Tensor, "B heads N d"],
    ) -> Float[Tensor, "B heads N d"]:
        """See `Context.attend`."""
        return clip_attention(query, key, value, self.num_frames, self.window, self.sink, self.choice)

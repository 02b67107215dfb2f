"""The size at which frames are encoded."""

import re
from dataclasses import dataclass
from typing import Literal

from omnistream.data.media.video_probe import MAX_FRAME_PIXELS
from omnistream.errors import UsageError


@dataclass(frozen=True)
class FrameSize:
    """A rule for the size of frames: one side with the aspect ratio kept, or both sides."""

    side: Literal["short", "long"] | None = "short"
    """The side that `pixels` refers to; None for `exact`."""
    pixels: int = 224
    """Length of that side."""
    exact: tuple[int, int] | None = None
    """Height and width; frames of another aspect ratio are stretched."""

    @classmethod
    def parse(cls, text: str) -> "FrameSize":
        """From `224`, `short:224`, `long:512` or `240x320` (height x width).

        Raises:
            UsageError: If it is none of these.
        """
        if found := re.fullmatch(r"(?:(short|long):)?([1-9][0-9]*)", text):
            side: Literal["short", "long"] = "long" if found[1] == "long" else "short"
            return cls(side, int(found[2]))
        if found := re.fullmatch(r"(\d+)x(\d+)", text):
            return cls(None, 0, (int(found[1]), int(found[2])))
        raise UsageError(f"size must look like 224, short:224, long:512 or 240x320 (height x width), got {text!r}")

    def of(self, height: int, width: int, patch_size: int) -> tuple[int, int]:
        """Height and width for frames of this size, multiples of the patch size (rounded to the nearest).

        Raises:
            UsageError: If an exact size is not a multiple of the patch size, or the frames would have too many pixels.
        """
        size = self._of(height, width, patch_size)
        if size[0] * size[1] > MAX_FRAME_PIXELS:
            raise UsageError(
                f"frames of {size[0]}x{size[1]} (height x width) are over the limit of {MAX_FRAME_PIXELS} pixels; "
                "choose a smaller size"
            )
        return size

    def _of(self, height: int, width: int, patch_size: int) -> tuple[int, int]:
        if self.exact is not None:
            if min(self.exact) < patch_size or any(length % patch_size for length in self.exact):
                raise UsageError(
                    f"both sides of the size must be multiples of the patch size {patch_size}, got "
                    f"{self.exact[0]}x{self.exact[1]}"
                )
            return self.exact
        scale = self.pixels / (min if self.side == "short" else max)(height, width)
        rounded = [max(1, round(length * scale / patch_size)) * patch_size for length in (height, width)]
        return rounded[0], rounded[1]

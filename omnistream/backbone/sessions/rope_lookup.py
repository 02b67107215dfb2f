"""Rotary positions of one frame per stream from lookup tables, for graphs that are compiled or exported.

`rope_tables` computes in float64, which TensorRT lacks. Here the frame index is split into four digits to base 256; the
angle of each digit is looked up, already reduced to one turn in float64 when the table was made, and the four are added
in float32. This is as exact for frame 4 000 000 000 as for frame 0, and needs neither float64 nor a repeated table.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from omnistream.backbone.rope import FRAMES_PER_UNIT, RopeLayout, element_angles, patch_coordinates

BASE = 256
NUM_DIGITS = 4
"""Frame indices below 256^4, which is four and a half years at 30 frames per second."""


class RopeLookup(nn.Module):
    """Cosines and sines of all tokens of a frame, for an image size that is fixed beforehand.

    Args:
        height: Rows h of patches.
        width: Columns w of patches.
        num_prefix: Tokens before the patches, which are not rotated.
        head_dim: Width d of a head.
        layout: See `omnistream.backbone.rope`.
        device: Device of the tables.
        latest: Largest time, in frames, which all later frames share; None for no limit (see `time_mode`).
    """

    space: Tensor
    time: Tensor
    is_patch: Tensor
    powers: Tensor
    offsets: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        num_prefix: int,
        head_dim: int,
        layout: RopeLayout,
        device: torch.device | None = None,
        latest: int | None = None,
    ) -> None:
        super().__init__()
        self.latest = latest
        y, x = torch.meshgrid(patch_coordinates(height), patch_coordinates(width), indexing="ij")
        # An element is rotated by time or by space, never by both, so the two tables may be added.
        space = element_angles(torch.zeros_like(y), y, x, head_dim, layout).flatten(0, 1)
        powers = BASE ** torch.arange(NUM_DIGITS)
        t = (powers[:, None] * torch.arange(BASE)).double() / FRAMES_PER_UNIT
        time = element_angles(t, torch.zeros_like(t), torch.zeros_like(t), head_dim, layout).flatten(0, 1)
        tables = {
            "space": torch.nn.functional.pad(space, (0, 0, num_prefix, 0)).float(),  # [P, d]
            "time": time.float(),  # [NUM_DIGITS * BASE, d]
            "is_patch": (torch.arange(num_prefix + height * width) >= num_prefix).float()[:, None],  # [P, 1]
            "powers": powers,
            "offsets": BASE * torch.arange(NUM_DIGITS),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(device), persistent=False)

    def at(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See `PositionTables.at`; the frames are those of as many streams."""
        return self(frames if self.latest is None else frames.clamp(max=self.latest))

    def forward(self, frame: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B P d"], Float[Tensor, "B P d"]]:
        """Cosines and sines, float32, of the frames with these indices in their streams."""
        # An integer division becomes a float32 one in ONNX. Here every dividend is a digit times a power of 256, so the
        # quotient is exact.
        below = frame[:, None] % self.powers
        ends = torch.cat([below[:, 1:], frame[:, None]], dim=1)
        digits = ((ends - below) / self.powers).long()
        time = self.time[digits + self.offsets].sum(dim=1)  # [B, d]
        angles = self.space + self.is_patch * time[:, None]
        return angles.cos(), angles.sin()

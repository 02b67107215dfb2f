"""3D rotary positions over (frame, row, column), in the layouts the field uses.

DINOv3 rotates pair e of a head, elements e and e + d/2, by one angle: the first d/4 pairs by the row, the rest by the
column. OmniStream assigns every element with index 3 modulo 4 to time (paper Sec. 3.2). Three layouts:

- `rotation` (default): DINOv3's pairs, with pairs 3, 7, 11, ... rotated by time. A rotation, so scores depend on
  relative position only.
- `official`: what the released code does. Elements of the first half use the row, of the second half the column, so a
  pair is rotated by two different angles; needed to reproduce the released weights.
- `spatial`: DINOv3 itself, no time.

Angles are computed in float64 and reduced to one turn before the cast, which keeps them exact for frame indices in the
millions; cos, sin and the rotation are float32.
"""

import math
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.distributed import rank

RopeLayout = Literal["rotation", "official", "spatial"]
ROPE_BASE = 100.0
FRAMES_PER_UNIT = 16
"""Time coordinate of frame n is n / 16, in training and streaming alike."""


def check_layout(layout: str, head_dim: int) -> None:
    """Check a layout and a head width.

    Raises:
        ValueError: If the layout is unknown, or the head width is not a multiple of 8.
    """
    if layout not in get_args(RopeLayout):
        raise ValueError(f"rope_layout must be one of {get_args(RopeLayout)}, got {layout!r}")
    if head_dim % 8:
        raise ValueError(f"3D-RoPE needs a head width that is a multiple of 8, got {head_dim}")


def patch_coordinates(size: int) -> Float[Tensor, " size"]:
    """Centres of `size` cells on [-1, 1], float64: 2 (i + 0.5) / size - 1."""
    return 2 * (torch.arange(size, dtype=torch.float64) + 0.5) / size - 1


def time_turns(t: Float[Tensor, "*N"], head_dim: int) -> Float[Tensor, "*N quarter"]:
    """Rotations, in turns, of the elements that belong to time (index 3 modulo 4), in the dtype of `t`."""
    frequencies = ROPE_BASE ** (-torch.arange(head_dim // 8, dtype=t.dtype, device=t.device) / (head_dim // 4))
    turns = t[..., None] * frequencies
    return torch.cat([turns, turns], dim=-1)


def element_angles(
    t: Float[Tensor, "*N"], y: Float[Tensor, "*N"], x: Float[Tensor, "*N"], head_dim: int, layout: RopeLayout
) -> Float[Tensor, "*N d"]:
    """Angle in radians by which each element of a head is rotated, in float64, within one turn of zero.

    Args:
        t: Time coordinate (frame index / 16).
        y: Row coordinate in [-1, 1].
        x: Column coordinate in [-1, 1].
        head_dim: Width d of a head.
        layout: See the module.

    Source: facebookresearch/dinov3: dinov3/layers/rope_position_encoding.py;
        Go2Heart/OmniStream: model/layers/rope3d.py.
    """
    quarter = head_dim // 4
    device = t.device
    turns_per_unit = ROPE_BASE ** (-torch.arange(quarter, dtype=torch.float64, device=device) / quarter)
    y_turns = y.double()[..., None] * turns_per_unit  # [*N, d/4]
    x_turns = x.double()[..., None] * turns_per_unit
    if layout == "official":
        turns = torch.cat([y_turns, y_turns, x_turns, x_turns], dim=-1)
    else:
        turns = torch.cat([y_turns, x_turns, y_turns, x_turns], dim=-1)
    if layout != "spatial":
        turns[..., 3::4] = time_turns(t.double(), head_dim)
    return 2 * math.pi * (turns - turns.round())


@runtime_checkable
class PositionTables(Protocol):
    """Provides cosines and sines for all tokens of frames."""

    def at(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tables [*rows, T, P, d] of frames [*rows, T]; see `GridTables.at`."""
        ...


class GridTables:
    """Cosines and sines of one patch grid; the spatial part is computed once, and each frame adds its time.

    Args:
        height: Rows h of patches.
        width: Columns w of patches.
        num_prefix: Tokens before the patches in each frame (CLS, camera, registers); they are not rotated.
        head_dim: Width d of a head.
        layout: See the module.
        device: Device of the tables.
        space_scale: Training-time factor on y and x.
    """

    def __init__(
        self,
        height: int,
        width: int,
        num_prefix: int,
        head_dim: int,
        layout: RopeLayout,
        device: torch.device,
        space_scale: float = 1.0,
    ) -> None:
        self.num_prefix, self.head_dim, self.layout = num_prefix, head_dim, layout
        y, x = (patch_coordinates(size).to(device, non_blocking=True) * space_scale for size in (height, width))
        y_grid, x_grid = torch.meshgrid(y, x, indexing="ij")
        angles = element_angles(torch.zeros_like(y_grid), y_grid, x_grid, head_dim, layout).flatten(0, 1)
        angles = torch.nn.functional.pad(angles, (0, 0, num_prefix, 0))  # [P, d]
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def at(
        self, frames: Int[Tensor, "*rows T"] | Float[Tensor, "*rows T"], time_scale: float = 1.0
    ) -> tuple[Float[Tensor, "*rows T P d"], Float[Tensor, "*rows T P d"]]:
        """Tables for all tokens of frames at these times, given in frames; `time_scale` is the training-time factor."""
        cos, sin = (table.expand(*frames.shape, *table.shape).clone() for table in (self.cos, self.sin))
        if self.layout != "spatial":
            turns = time_turns(frames.double() / FRAMES_PER_UNIT * time_scale, self.head_dim)
            angles = 2 * math.pi * (turns - turns.round())[..., None, :]
            cos[..., self.num_prefix :, 3::4] = angles.cos().float()
            sin[..., self.num_prefix :, 3::4] = angles.sin().float()
        return cos, sin


def rope_tables(
    frame_indices: Int[Tensor, "*rows T"] | Float[Tensor, "*rows T"],
    height: int,
    width: int,
    num_prefix: int,
    head_dim: int,
    layout: RopeLayout,
    time_scale: float = 1.0,
    space_scale: float = 1.0,
) -> tuple[Float[Tensor, "*rows T P d"], Float[Tensor, "*rows T P d"]]:
    """Cosines and sines for all tokens of the given frames, float32, P = num_prefix + height * width.

    Args:
        frame_indices: Time of each frame in its stream, in frames.
        height: See `GridTables`.
        width: See `GridTables`.
        num_prefix: See `GridTables`.
        head_dim: See `GridTables`.
        layout: See `GridTables`.
        time_scale: Training-time factor on t.
        space_scale: Training-time factor on y and x.
    """
    grid = GridTables(height, width, num_prefix, head_dim, layout, frame_indices.device, space_scale)
    return grid.at(frame_indices, time_scale)


def rotate(
    tokens: Float[Tensor, "*batch N d"], cos: Float[Tensor, "*rows N d"], sin: Float[Tensor, "*rows N d"]
) -> Float[Tensor, "*batch N d"]:
    """Rotate queries or keys by their positions in float32; the result has their own dtype."""
    value = tokens.float()
    first, second = value.chunk(2, dim=-1)
    turned = torch.addcmul(value * cos, torch.cat([-second, first], dim=-1), sin)
    return turned.to(tokens.dtype)


def draw_scale(limit: float) -> float:
    """A factor, log-uniform in [1/limit, limit]: DINOv3's RoPE-box jittering (its option `rescale`).

    It comes from torch's generator of the CPU, which advances alike in all processes. The first process, and one alone,
    takes the number drawn there, every other one a number that derives from it and its rank: with the same seed
    everywhere the factors differ, and a run that is resumed with that seed repeats them.
    """
    drawn = torch.rand(()).item()
    if rank():
        seed = int(drawn * 2**24) + rank() * 0x9E3779B1  # all bits of the number; an odd factor keeps ranks apart
        drawn = torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
    return math.exp((2 * drawn - 1) * math.log(limit))

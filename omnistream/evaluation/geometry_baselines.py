"""Trajectories that need no model, to compare one with: they are made of the true poses and scored like predictions."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras import invert_pose

PoseBaseline = Literal["identity", "constant_velocity", "previous_motion"]
"""`identity`: the camera never moves.

`constant_velocity`: the true motion from the first frame to the second is repeated for ever, so two true poses are
known.

`previous_motion`: the motion from each frame to the next is the true one before it, and none at the first. It knows the
truth up to the frame, and only its errors from frame to frame mean something: its path is the true one, late.
"""


def baseline_poses(target: Float[Tensor, "N 4 4"], baseline: PoseBaseline) -> Float[Tensor, "N 4 4"]:
    """The poses of a baseline, camera-to-world.

    Args:
        target: True poses; all are known.
        baseline: See `PoseBaseline`.

    Raises:
        ValueError: If there is no such baseline.
    """
    if baseline not in get_args(PoseBaseline):
        raise ValueError(f"baseline must be one of {', '.join(get_args(PoseBaseline))}, got {baseline!r}")
    still = torch.eye(4, dtype=target.dtype, device=target.device)
    if baseline == "identity" or len(target) < 2:
        return still.repeat(len(target), 1, 1)
    motions = invert_pose(target[:-1]) @ target[1:]  # [N - 1, 4, 4]
    if baseline == "constant_velocity":
        motions = motions[:1].expand_as(motions)
    else:
        motions = torch.cat([still[None], motions[:-1]])
    poses = [still]
    for motion in motions:
        poses.append(poses[-1] @ motion)
    return torch.stack(poses)

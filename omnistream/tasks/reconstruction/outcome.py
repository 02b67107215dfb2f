"""What came out for one video of an evaluation: a status that is never silent, and the values of its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor

Status = Literal["scored", "no truth", "unreadable", "not finite"]
"""`scored`; `no truth`: nothing to compare with, such as a reference that does not move; `unreadable`: a broken file;
`not finite`: a prediction with NaN or infinity, whose main errors are NaN. The last one enters every mean, the two
before it enter none and are counted as skipped."""


@dataclass(frozen=True, kw_only=True)
class SequenceOutcome:
    """One video; plain values that JSON holds, so that a stopped evaluation goes on with the next video."""

    name: str
    status: Status = "scored"
    reason: str = ""
    """In words, for every status but `scored`."""
    num_frames: int = 0
    """Frames that the model has seen."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Metrics by name, such as `abs_rel` and, for another alignment, `metric/abs_rel`."""
    weight: float = 1.0
    """Of this video in the means: valid pixels for depth, 1 for poses."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Other facts, such as the scale of the alignment and seconds per frame."""


class ReconstructedVideo(NamedTuple):
    """What plots are made of: the output of a test step beside its `SequenceOutcome`; on the CPU."""

    name: str
    images: UInt8[Tensor, "K 3 h w"]
    """Frames as the model saw them; K of them, evenly spread over the video, for evaluations of long ones."""
    positions: list[int]
    """Of these frames in the stream."""
    depth: Float[Tensor, "K h w"] | None
    """Predicted depth of these frames, aligned to the truth."""
    confidence: Float[Tensor, "K h w"] | None
    true_depth: Float[Tensor, "K H W"] | None
    """0 where there is none."""
    intrinsics: Float[Tensor, "K 3 3"] | None
    """Predicted, in pixels of `depth`."""
    camera_to_world: Float[Tensor, "T 4 4"] | None
    """Predicted poses of all frames, aligned to the truth."""
    true_camera_to_world: Float[Tensor, "T 4 4"] | None
    frame_errors: Mapping[str, Float[Tensor, " T"]]
    """Errors of every frame by name, such as `abs_rel` or `position`; NaN where there is no truth."""

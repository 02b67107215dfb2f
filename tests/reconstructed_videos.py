"""Videos of an evaluation made by hand, whose every number is known."""

import torch

from omnistream.tasks.reconstruction.outcome import ReconstructedVideo

SIZE = (12, 16)
"""Height and width of the predictions."""
FOCAL = 20.0


def plane_video(name="plane", num_frames=5, error=0.1, **changes):
    """A camera that moves to the right by 0.5 per frame, before a plane at depth 4 (2 in its left half).

    Predicted depth is too large by the share `error`, and the predicted camera 0.1 m too low; frame 1 has no truth.
    """
    height, width = SIZE
    truth = torch.full((num_frames, height, width), 4.0)
    truth[:, :, : width // 2] = 2.0
    poses = torch.eye(4).repeat(num_frames, 1, 1)
    poses[:, 0, 3] = 0.5 * torch.arange(num_frames)
    lower = poses.clone()
    lower[:, 1, 3] += 0.1
    errors = torch.full((num_frames,), float(error))
    errors[1] = torch.nan
    images = torch.arange(num_frames * 3 * height * width).view(num_frames, 3, height, width) % 251
    fields = {
        "name": name,
        "images": images.to(torch.uint8),
        "positions": list(range(num_frames)),
        "depth": truth * (1 + error),
        "confidence": 1 + torch.arange(width).expand_as(truth).float(),
        "true_depth": truth.repeat_interleave(2, 1).repeat_interleave(2, 2),
        "intrinsics": torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]).repeat(num_frames, 1, 1),
        "camera_to_world": lower,
        "true_camera_to_world": poses,
        "frame_errors": {"abs_rel": errors, "position": torch.full((num_frames,), 0.1)},
    }
    return ReconstructedVideo(**fields | changes)

"""The camera head: pose and field of view of every frame from its camera token."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_USUAL_FOV = 0.9
"""Initial prediction in radians, about 52 degrees."""


class CameraHead(nn.Module):
    """MLP from a camera token to the nine numbers of `cameras.encode_pose`, frame by frame.

    Starts near the identity pose and a field of view of 0.9 rad. Runs in float32 with autocast off, so its parameters
    must stay in float32. The quaternion is not normalised; decoding takes any length.

    Args:
        embed_dim: Width of the token.
        fov_activation: Keeps the field of view positive. `relu` adds 0.01 and has no gradient for smaller predictions;
            the paper does not say, DA3 uses a plain ReLU.

    Source: ByteDance-Seed/Depth-Anything-3: src/depth_anything_3/model/cam_dec.py; the paper (Sec. 3.3) says
    "lightweight MLP".
    """

    def __init__(self, embed_dim: int, fov_activation: Literal["softplus", "relu"] = "softplus") -> None:
        super().__init__()
        if fov_activation not in ("softplus", "relu"):
            raise ValueError(f"fov_activation must be softplus or relu, got {fov_activation!r}")
        self.fov_activation = fov_activation
        self.trunk = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim), nn.ReLU()
        )
        self.translation = nn.Linear(embed_dim, 3)
        self.quaternion = nn.Linear(embed_dim, 4)
        self.fov = nn.Linear(embed_dim, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the biases of the three outputs; the weights keep PyTorch's initialisation."""
        bias = math.log(math.expm1(_USUAL_FOV)) if self.fov_activation == "softplus" else _USUAL_FOV - 0.01
        with torch.no_grad():
            self.translation.bias.zero_()
            self.quaternion.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
            self.fov.bias.fill_(bias)

    def forward(self, camera: Float[Tensor, "B T D"]) -> Float[Tensor, "B T 9"]:
        """Camera-to-world [t(3), q xyzw(4), fov_h, fov_w] in the frame of the first camera, radians, float32."""
        with torch.autocast(camera.device.type, enabled=False):
            x = self.trunk(camera.float())
            fov = F.softplus(self.fov(x)) if self.fov_activation == "softplus" else F.relu(self.fov(x)) + 0.01
            return torch.cat([self.translation(x), self.quaternion(x), fov], -1)

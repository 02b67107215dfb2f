"""A backbone without weights, for tests that know what to expect of its features."""

import torch
import torch.nn.functional as F
from torch import nn

from omnistream.backbone import BackboneOutput


class Colours(nn.Module):
    """A backbone whose features are colours: per patch its mean, then the means of its quarters, around grey."""

    embed_dim, num_layers = 15, 1

    def __init__(self, patch_size=8):
        super().__init__()
        self.patch_size = patch_size

    def normalize(self, images):
        return images / 255 - 0.5

    def forward(self, images, *, layers=()):
        planes, p = images.flatten(0, 1), self.patch_size
        whole, quarters = F.avg_pool2d(planes, p), F.avg_pool2d(planes, p // 2)
        parts = [whole, *(quarters[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))]
        last = torch.cat(parts, 1).permute(0, 2, 3, 1).unflatten(0, images.shape[:2])
        mean = last.mean((2, 3))
        return BackboneOutput(patches={}, last=last, cls=mean, registers=mean[:, :, None], camera=None)

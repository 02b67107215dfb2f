"""Depth maps for which the published evaluation code was run."""

import torch


def depth_maps():
    """Predicted and true depth [2, 8, 10]; 0 where there is no truth."""
    b, i, j = torch.meshgrid(torch.arange(2.0), torch.arange(8.0), torch.arange(10.0), indexing="ij")
    target = 1 + 0.25 * i + 0.1 * j + 0.5 * b
    preds = target * (1 + 0.1 * torch.sin(i + 2 * j + 3 * b)) + 0.05
    target[(3 * i + 5 * j + b) % 7 == 0] = 0
    return preds, target

"""Small synthetic clips to draw."""

import pytest
import torch


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def depth():
    """Truth [5, 32, 32] from 1 to 4 with a hole, and its validity."""
    truth = torch.linspace(1, 4, 32)[:, None].expand(5, 32, 32).clone()
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[:, 10:14, 10:14] = False
    return truth, valid

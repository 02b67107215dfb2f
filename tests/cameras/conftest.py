"""The worked example shared by the camera tests: Rz(30) Ry(-20) Rx(10), published with every convention spelled out."""

import math

import pytest
import torch


def rotation(axis: int, degrees: float) -> torch.Tensor:
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = torch.eye(3, dtype=torch.float64)
    angle = math.radians(degrees)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[b, a], matrix[a, b] = math.sin(angle), -math.sin(angle)
    return matrix


@pytest.fixture
def world_to_camera():
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation(2, 30) @ rotation(1, -20) @ rotation(0, 10)
    pose[:3, 3] = torch.tensor([0.5, -0.25, 2.0])
    return pose


@pytest.fixture
def camera_to_world(world_to_camera):
    return torch.linalg.inv(world_to_camera)

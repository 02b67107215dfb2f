import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from omnistream.cameras import (
    invert_pose,
    make_pose,
    matrix_from_quaternion,
    nearest_rotation,
    quaternion_from_matrix,
    relative_to_first,
    rotation_angle,
)


def random_rotations(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, random_state=seed).as_matrix())


def about(axis: str, degrees: float) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_euler(axis, degrees, degrees=True).as_matrix())


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.eye(3, dtype=torch.float64), (0, 0, 0, 1)),
        (about("x", 90), (0.70710678, 0, 0, 0.70710678)),
        (about("x", 180), (1, 0, 0, 0)),
        (about("z", 180), (0, 0, 1, 0)),
        (about("z", 200), (0, 0, -0.98480775, 0.17364818)),
    ],
)
def test_known_quaternions(matrix, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(quaternion_from_matrix(matrix), expected, atol=1e-8, rtol=0)


def test_worked_example(world_to_camera):
    expected = torch.tensor([0.127679, -0.144878, 0.268536, 0.943714], dtype=torch.float64)
    torch.testing.assert_close(quaternion_from_matrix(world_to_camera[:3, :3]), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, -3.0, 1e-3])
def test_quaternion_of_any_length(scale):
    quaternion = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) * scale
    thirds = torch.tensor([[2, -10, 11], [14, 5, 2], [-5, 10, 10]], dtype=torch.float64) / 15
    torch.testing.assert_close(matrix_from_quaternion(quaternion), thirds)


def test_agrees_with_scipy_and_is_canonical():
    rotations = random_rotations(200)
    quaternion = quaternion_from_matrix(rotations)
    expected = torch.from_numpy(Rotation.from_matrix(rotations.numpy()).as_quat(canonical=True))
    torch.testing.assert_close(quaternion, expected)
    assert (quaternion[:, 3] >= 0).all()
    torch.testing.assert_close(matrix_from_quaternion(quaternion).reshape(4, 50, 3, 3), rotations.reshape(4, 50, 3, 3))


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 90.0, 179.9999, 180.0])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_float32_value_and_gradient_at_every_angle(axis, degrees):
    matrix = about(axis, degrees).float().requires_grad_()
    quaternion = quaternion_from_matrix(matrix)
    torch.testing.assert_close(matrix_from_quaternion(quaternion), matrix, atol=3e-7, rtol=0)
    # Along rotations only: which of two equal numbers the function divides by is up to rounding, as at 90 degrees.
    along = []
    for rotation in (about(axis, degrees).requires_grad_(), matrix):
        quaternion_from_matrix(rotation).sum().backward()
        slope = rotation.detach().mT @ rotation.grad
        along.append((slope - slope.mT).double())
    torch.testing.assert_close(along[1], along[0], atol=1e-6, rtol=1e-5)


def test_gradient_is_that_of_the_function():
    matrices = random_rotations(5).requires_grad_()
    assert torch.autograd.gradcheck(quaternion_from_matrix, matrices)
    quaternions = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix_from_quaternion, quaternions)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 30.0, 90.0, 179.999999, 180.0])
def test_rotation_angle(degrees):
    first = random_rotations(3)
    second = first @ about("y", degrees)
    expected = torch.full((3,), degrees, dtype=torch.float64)
    # 1e-13: the sine of a tiny angle is exact to machine precision, unlike arccos, which would be off by 1e-6 degrees.
    torch.testing.assert_close(rotation_angle(first, second), expected, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(rotation_angle(second, first, degrees=False), expected * math.pi / 180)


def test_pose_inverse_and_first_frame():
    poses = make_pose(random_rotations(6), torch.randn(6, 3, dtype=torch.float64)).reshape(2, 3, 4, 4)
    torch.testing.assert_close(invert_pose(poses), torch.linalg.inv(poses))
    relative = relative_to_first(poses)
    torch.testing.assert_close(relative[:, 0], torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    torch.testing.assert_close(poses[:, :1] @ relative, poses)


def test_first_frame_does_not_depend_on_the_world():
    poses = make_pose(random_rotations(4), torch.randn(4, 3, dtype=torch.float64))
    world = make_pose(random_rotations(1, seed=1)[0], torch.tensor([5.0, -3.0, 100.0], dtype=torch.float64))
    torch.testing.assert_close(relative_to_first(world @ poses), relative_to_first(poses))


def test_the_nearest_rotation_is_nearer_than_its_neighbours():
    generator = torch.Generator().manual_seed(0)
    true = matrix_from_quaternion(torch.randn(20, 4, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(nearest_rotation(2 * true), true)
    matrix = true + 0.2 * torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    matrix[:5, :, 0] *= -1  # these mirror
    found = nearest_rotation(matrix)
    torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    assert (torch.linalg.det(found) > 0).all()
    distance = (found - matrix).square().sum((1, 2))
    for _ in range(50):
        turn = torch.cat([0.02 * torch.randn(20, 3, generator=generator, dtype=torch.float64), torch.ones(20, 1)], 1)
        assert ((matrix_from_quaternion(turn) @ found - matrix).square().sum((1, 2)) >= distance).all()

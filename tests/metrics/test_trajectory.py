"""Trajectory errors against evo's numbers and closed forms."""

import math

import numpy as np
import pytest
import torch

from omnistream.metrics import AbsoluteTrajectoryError, trajectory_errors


def turn(axis, angle):
    c, s = math.cos(angle), math.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)]["xyz".index(axis)]
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def pose(rotation, position):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = rotation, torch.as_tensor(position, dtype=torch.float64)
    return matrix


def spiral(noise=1.0):
    """Reference and prediction of 8 cameras, of which evo gave the numbers below."""
    reference = [pose(turn("z", 0.3 * i), [math.cos(0.3 * i), math.sin(0.3 * i), 0.1 * i]) for i in range(8)]
    predicted = []
    for i, true in enumerate(reference):
        offset = 0.01 * noise * torch.tensor([math.sin(i), math.cos(2 * i), math.sin(3 * i)], dtype=torch.float64)
        centre = 0.5 * turn("x", 0.5) @ (true[:3, 3] + offset) + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        predicted.append(pose(turn("x", 0.5) @ turn("z", 0.3 * i) @ turn("y", 0.02 * noise * i), centre))
    return torch.stack(predicted), torch.stack(reference)


def values(errors):
    return [float(error) for error in errors]


def test_numbers_of_evo():
    preds, target = spiral()
    assert values(trajectory_errors(preds, target)) == pytest.approx([0.010668, 0.019130, 1.785527], abs=1e-6)
    assert values(trajectory_errors(preds[:3], target[:3])) == pytest.approx([0.003046, 0.009012, 1.195998], abs=1e-6)
    assert values(trajectory_errors(preds[:6], target[:6])) == pytest.approx([0.009441, 0.017338, 1.500352], abs=1e-6)


def test_another_frame_and_scale_are_no_error():
    assert values(trajectory_errors(*spiral(noise=0))) == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_mirrored_path_is_an_error():
    _, target = spiral()
    mirrored = torch.eye(4, dtype=torch.float64).repeat(8, 1, 1)
    mirrored[:, :3, 3] = target[:, :3, 3] * torch.tensor([1, 1, -1])
    assert values(trajectory_errors(mirrored, target)) == pytest.approx([0.025843, 0.355628, 17.188734], abs=1e-6)


def test_straight_path_in_closed_form():
    target = torch.eye(4).repeat(5, 1, 1)
    target[:, 0, 3] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    preds = target.clone()
    preds[:, 0, 3] = 10 * torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    preds[2, 1, 3] = 1e-7  # off the line by less than anything that counts
    assert values(trajectory_errors(preds, target)) == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_prediction_that_stands_still_is_as_far_away_as_the_mean():
    _, target = spiral()
    still = torch.eye(4).repeat(8, 1, 1)
    centres = target[:, :3, 3]
    ate = float((centres - centres.mean(0)).square().sum(1).mean().sqrt())
    step = float((centres[1:] - centres[:-1]).square().sum(1).mean().sqrt())
    assert values(trajectory_errors(still, target)) == pytest.approx([ate, step, math.degrees(0.3)], rel=1e-6)


def test_what_has_no_reference_is_skipped_and_a_failure_is_not():
    preds, target = spiral()
    metric = AbsoluteTrajectoryError()
    metric.update(preds[None], target[None])
    metric.update(preds[None], torch.eye(4, dtype=torch.float64).repeat(1, 8, 1, 1))
    metric.update(preds[None], target[None], torch.arange(8)[None] < 2)
    assert metric.compute() == pytest.approx(0.010668, abs=1e-6)
    assert metric.skipped_samples == 2
    preds[3, 0, 3] = torch.nan
    metric.update(preds[None], target[None])
    assert metric.compute().isnan()


def test_frames_without_a_known_pose_are_left_out():
    preds, target = spiral()
    valid = torch.tensor([True, True, False, True, True, False, True, True])
    expected = values(trajectory_errors(preds[valid], target[valid]))
    assert values(trajectory_errors(preds, target, valid)) == expected
    target[~valid] = -torch.inf  # as ScanNet marks them
    assert values(trajectory_errors(preds, target)) == expected


def test_real_path(sample_data):
    """Each third pose as the reference, the pose after it as the prediction; numbers of evo."""
    poses = np.loadtxt(sample_data / "rgbd/deep_video_mvs/hololens-dataset/000/poses_all.txt").reshape(-1, 4, 4)
    preds, target = torch.from_numpy(poses[1:269:3].copy()), torch.from_numpy(poses[0:268:3].copy())
    preds[:, :3, 3] *= 0.25
    assert values(trajectory_errors(preds, target)) == pytest.approx([0.074607, 0.046395, 3.909107], rel=2e-5)

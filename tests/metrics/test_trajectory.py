"""Trajectory errors against evo's numbers and closed forms."""

import math

import numpy as np
import pytest
import torch

from omnistream.cameras import make_pose, matrix_from_quaternion, nearest_rotation, quaternion_from_matrix
from omnistream.metrics import (
    AbsoluteTrajectoryError,
    score_trajectory,
    trajectory_errors,
    trajectory_similarity,
)


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


@pytest.mark.parametrize(
    ("alignment", "expected"),
    [
        ("sim3", [0.010668, 0.019130, 1.785527]),
        ("se3", [0.332899, 0.158553, 1.785527]),
        ("scale", [7.571567, 0.019130, 1.785527]),
        ("none", [3.455738, 0.158553, 1.785527]),
    ],
)
def test_alignments_of_evo(alignment, expected):
    preds, target = spiral()
    assert values(trajectory_errors(preds, target, alignment=alignment)) == pytest.approx(expected, abs=2e-6)


def test_the_similarity_of_evo():
    scale, rotation, translation = trajectory_similarity(*spiral())
    assert float(scale) == pytest.approx(1.996074, abs=1e-6)
    assert translation.tolist() == pytest.approx([-2.017633, -6.339551, -3.392605], abs=2e-6)
    expected = [0.999980, 0.006249, -0.000895, -0.005077, 0.880445, 0.474121, 0.003751, -0.474107, 0.880459]
    assert rotation.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_errors_of_single_frames():
    preds, target = spiral()
    valid = torch.ones(8, dtype=torch.bool)
    found = score_trajectory(preds, target, valid).position_errors
    expected = [0.010174, 0.008208, 0.011711, 0.009063, 0.009039, 0.014222, 0.012462, 0.009000]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    valid[2] = False
    score = score_trajectory(preds, target, valid)
    assert score.position_errors.isnan().tolist() == [False, False, True] + [False] * 5
    assert (score.num_poses, len(score.aligned)) == (7, 8)
    assert float(score.errors.ate) == pytest.approx(float(score.position_errors[valid].square().mean().sqrt()))


def test_pairs_of_frames_further_apart():
    preds, target = spiral()
    found = values(trajectory_errors(preds, target, delta=2))
    assert found == pytest.approx([0.010668, 0.023377, 3.427247], abs=2e-6)


def power_path(size):
    """Positions `size` (i, i^2, i^3)."""
    poses = torch.eye(4, dtype=torch.float64).repeat(8, 1, 1)
    poses[:, :3, 3] = size * torch.arange(8, dtype=torch.float64)[:, None] ** torch.tensor([1.0, 2.0, 3.0])
    return poses


def test_what_evo_refuses_has_a_status_and_a_reason():
    preds, target = spiral()
    still = torch.eye(4, dtype=torch.float64).repeat(8, 1, 1)
    trembling = still.clone()
    trembling[:, :3, 3] += 1e-9 * target[:, :3, 3]
    unknown = target.clone()
    unknown[2:] = -torch.inf  # as ScanNet marks frames that were not tracked
    for reference, reason in (
        (still, "the reference does not move"),
        (trembling, "the reference does not move"),
        (unknown, "the reference has 2 known poses; 3 are needed"),
    ):
        score = score_trajectory(preds, reference)
        assert (score.status, score.reason, score.note, score.errors) == ("no truth", reason, "", None)
        assert score.position_errors.isnan().all()
    assert score_trajectory(preds[:1], target[:1]).num_poses == 1
    broken = preds.clone()
    broken[5, 1, 1] = torch.nan
    score = score_trajectory(broken, target)
    assert (score.status, score.reason) == ("not finite", "the predicted pose of frame 5 is not finite")
    assert torch.stack(score.errors).isnan().all()


def test_what_is_peculiar_to_a_path_is_noted():
    preds, target = spiral()
    still = torch.eye(4, dtype=torch.float64).repeat(8, 1, 1)
    straight = still.clone()
    straight[:, 0, 3] = torch.arange(8)
    assert score_trajectory(preds, target).note == ""
    assert score_trajectory(still, target).note == "the prediction does not move"
    assert score_trajectory(target, straight).note == "the path of the reference is straight"
    assert score_trajectory(straight, target).note == "the path of the prediction is straight"
    straight[3, 1, 3] = 1e-4
    assert score_trajectory(straight, straight).note == ""
    assert {score_trajectory(x, y).status for x, y in ((still, target), (target, straight))} == {"scored"}


def test_a_small_but_well_shaped_prediction_fits():
    assert values(trajectory_errors(power_path(1e-9), power_path(1e-3)))[0] == pytest.approx(0, abs=1e-9)


def test_without_an_alignment_a_reference_may_stand_still_and_have_two_poses():
    still = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    preds = still.clone()
    preds[1, 0, 3] = 2
    assert values(trajectory_errors(preds, still, alignment="none")) == pytest.approx([2**0.5, 2, 0])
    assert score_trajectory(preds[:1], still[:1], alignment="none").reason.endswith("1 known poses; 2 are needed")


def test_a_straight_path_may_turn_about_itself():
    """The rotation about the line is open: no error depends on it."""
    target = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    target[:, :3, 3] = torch.arange(6)[:, None] * torch.tensor([1.0, 2.0, 2.0])
    preds = target.clone()
    preds[:, :3, :3] = turn("x", 0.3) @ preds[:, :3, :3]
    preds[:, :3, 3] = 0.1 * preds[:, :3, 3] @ turn("x", 0.3).T + 1
    assert values(trajectory_errors(preds, target)) == pytest.approx([0, 0, 0], abs=1e-6)


def test_bad_arguments(no_type_checks):
    preds, target = spiral()
    with pytest.raises(ValueError, match="there are 3 predicted poses for 8 frames"):
        score_trajectory(preds[:3], target)
    with pytest.raises(ValueError, match="alignment must be one of sim3, se3, scale, none, got 'rigid'"):
        score_trajectory(preds, target, alignment="rigid")


def red_kitchen(folder, numbers):
    found = []
    for number in numbers:
        name = f"frame-{number:06d}.pose.txt"
        file = next(file for file in (folder / "data" / name, folder / "extra_poses" / name) if file.exists())
        found.append(np.loadtxt(file))
    return torch.from_numpy(np.stack(found))


def test_real_path_with_rounded_rotations(sample_data):
    """Rotations of this file have determinants of 0.9999; numbers of evo, which are of the nearest rotations."""
    folder = sample_data / "rgbd/tsdf_fusion_python"
    target, preds = red_kitchen(folder, range(0, 268, 3)), red_kitchen(folder, range(1, 269, 3))
    preds[:, :3, 3] *= 0.25
    assert values(trajectory_errors(preds, target)) == pytest.approx([0.005502, 0.004134, 0.371069], abs=1e-6)
    assert float(trajectory_similarity(preds, target).scale) == pytest.approx(4 * 1.000782, abs=4e-6)


def read_tum(file):
    """Stamps and poses."""
    rows = torch.from_numpy(np.loadtxt(file))
    return rows[:, 0], make_pose(matrix_from_quaternion(rows[:, 4:]), rows[:, 1:4])


def read_kitti(file):
    rows = torch.from_numpy(np.loadtxt(file)).reshape(-1, 3, 4)
    return make_pose(rows[:, :, :3], rows[:, :, 3])


def associated(reference, estimate, limit=0.01):
    """evo's rule: for each pose of the shorter trajectory the nearest of the other, if within the limit."""
    (long_stamps, long), (short_stamps, short) = reference, estimate
    nearest = torch.stack([(long_stamps - stamp).abs().argmin() for stamp in short_stamps])
    near = (long_stamps[nearest] - short_stamps).abs() <= limit
    return short[near], long[nearest[near]]


TUM = [
    ("freiburg1_xyz-groundtruth", "freiburg1_xyz-rgbdslam", 785, 1.008001, [0.013389, 0.005806, 0.353613]),
    ("freiburg1_xyz-groundtruth", "freiburg1_xyz-ORB_kf_mono", 32, 1.105622, [0.009755, 0.013835, 0.884849]),
    ("fr2_desk_groundtruth", "fr2_desk_ORB_kf_mono", 118, 2.228022, [0.007729, 0.007069, 0.387091]),
]


@pytest.mark.parametrize(("reference", "estimate", "count", "scale", "expected"), TUM)
def test_real_trajectories(sample_data, reference, estimate, count, scale, expected):
    folder = sample_data / "trajectories/tum"
    preds, target = associated(*[read_tum(folder / f"{name}.txt") for name in (reference, estimate)])
    assert len(preds) == count
    assert values(trajectory_errors(preds, target)) == pytest.approx(expected, abs=1e-6)
    assert float(trajectory_similarity(preds, target).scale) == pytest.approx(scale, abs=1e-6)


def test_real_drive(sample_data):
    folder = sample_data / "trajectories/kitti"
    preds, target = read_kitti(folder / "KITTI_00_ORB.txt"), read_kitti(folder / "KITTI_00_gt.txt")
    assert len(preds) == 4541
    assert values(trajectory_errors(preds, target)) == pytest.approx([0.937709, 0.027822, 0.114974], abs=1e-6)


def errors_of_evo(preds, target, alignment, delta=1):
    """ATE and RPE of evo 1.38, an oracle where it is installed."""
    main_ape, main_rpe = pytest.importorskip("evo.main_ape"), pytest.importorskip("evo.main_rpe")
    from evo.core.metrics import PoseRelation, Unit
    from evo.core.trajectory import PoseTrajectory3D

    def paths():
        stamps = np.arange(len(preds), dtype=float)
        for poses in (target, preds):
            quaternion = quaternion_from_matrix(nearest_rotation(poses[:, :3, :3]))[:, [3, 0, 1, 2]]
            yield PoseTrajectory3D(poses[:, :3, 3].numpy().copy(), quaternion.numpy(), stamps)

    how = {"align": alignment in ("sim3", "se3"), "correct_scale": alignment in ("sim3", "scale")}
    pairs = how | {"delta": delta, "delta_unit": Unit.frames, "all_pairs": True}
    translation, rotation = PoseRelation.translation_part, PoseRelation.rotation_angle_deg
    results = [main_ape.ape(*paths(), translation, **how)]
    results += [main_rpe.rpe(*paths(), relation, **pairs) for relation in (translation, rotation)]
    return [result.stats["rmse"] for result in results]


@pytest.mark.parametrize("alignment", ["sim3", "se3", "scale", "none"])
@pytest.mark.parametrize("delta", [1, 3])
def test_evo_on_real_trajectories(sample_data, alignment, delta):
    pytest.importorskip("evo")
    for reference, estimate, *_ in TUM:
        folder = sample_data / "trajectories/tum"
        preds, target = associated(*[read_tum(folder / f"{name}.txt") for name in (reference, estimate)])
        expected = errors_of_evo(preds, target, alignment, delta)
        found = values(trajectory_errors(preds, target, alignment=alignment, delta=delta))
        assert found == pytest.approx(expected, abs=1e-6)

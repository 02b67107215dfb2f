import pytest
import torch
from scipy.spatial.transform import Rotation

from omnistream.cameras import Similarity, align_similarity, apply_similarity, apply_similarity_to_poses, make_pose


@pytest.fixture
def truth():
    rotation = torch.from_numpy(Rotation.random(2, random_state=0).as_matrix())
    scale = torch.tensor([0.4, 3.0], dtype=torch.float64)
    return Similarity(scale, rotation, torch.randn(2, 3, dtype=torch.float64) * 5)


def test_recovers_a_similarity(truth):
    source = torch.randn(2, 20, 3, dtype=torch.float64)
    for found, expected in zip(align_similarity(source, apply_similarity(truth, source)), truth, strict=True):
        torch.testing.assert_close(found, expected)


def test_rigid_motion_keeps_scale_one(truth):
    source = torch.randn(2, 20, 3, dtype=torch.float64)
    rigid = truth._replace(scale=torch.ones(2, dtype=torch.float64))
    found = align_similarity(source, apply_similarity(rigid, source), with_scale=False)
    for value, expected in zip(found, rigid, strict=True):
        torch.testing.assert_close(value, expected)
    stretched = align_similarity(source, apply_similarity(truth, source), with_scale=False)
    torch.testing.assert_close(stretched.scale, rigid.scale)
    torch.testing.assert_close(stretched.rotation, truth.rotation)


def test_never_a_reflection():
    source = torch.randn(10, 3, dtype=torch.float64)
    found = align_similarity(source, source * torch.tensor([1.0, 1, -1], dtype=torch.float64))
    assert torch.linalg.det(found.rotation) == pytest.approx(1)


def test_agrees_with_scipy_on_noisy_weighted_points():
    source, noise = torch.randn(15, 3, dtype=torch.float64), torch.randn(15, 3, dtype=torch.float64) * 0.3
    weights = torch.rand(15, dtype=torch.float64)
    target = source @ torch.from_numpy(Rotation.random(random_state=3).as_matrix()).T + noise
    found = align_similarity(source, target, weights, with_scale=False)
    share = (weights / weights.sum())[:, None]
    a, b = target - (share * target).sum(0), source - (share * source).sum(0)
    expected, _ = Rotation.align_vectors(a.numpy(), b.numpy(), weights=weights.numpy())
    torch.testing.assert_close(found.rotation, torch.from_numpy(expected.as_matrix()))


def test_is_the_least_squares_optimum():
    source, target = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    found = align_similarity(source, target)
    best = (apply_similarity(found, source) - target).square().sum()
    for factor in (0.95, 1.05):
        assert (apply_similarity(found._replace(scale=found.scale * factor), source) - target).square().sum() > best
    for shift in torch.eye(3, dtype=torch.float64) * 0.05:
        assert (
            apply_similarity(found._replace(translation=found.translation + shift), source) - target
        ).square().sum() > best


def test_zero_weight_pairs_are_ignored(truth):
    source = torch.randn(2, 20, 3, dtype=torch.float64)
    target = apply_similarity(truth, source)
    weights = torch.ones(2, 20, dtype=torch.float64)
    target[:, :5], weights[:, :5] = 99.0, 0.0
    torch.testing.assert_close(align_similarity(source, target, weights).rotation, truth.rotation)


def test_poses_move_like_their_points(truth):
    rotation = torch.from_numpy(Rotation.random(10, random_state=1).as_matrix()).reshape(2, 5, 3, 3)
    poses = make_pose(rotation, torch.randn(2, 5, 3, dtype=torch.float64))
    moved = apply_similarity_to_poses(truth, poses)
    ahead = poses[..., :3, 3] + poses[..., :3, 2]  # one unit along the optical axis
    expected = moved[..., :3, 3] + truth.scale[:, None, None] * moved[..., :3, 2]
    torch.testing.assert_close(apply_similarity(truth, ahead), expected)


def test_no_points_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        align_similarity(torch.zeros(0, 3), torch.zeros(0, 3))

"""Accuracy and completeness of point clouds against closed forms."""

import math

import pytest
import torch

from omnistream.cameras import Similarity, apply_similarity, make_pose, matrix_from_quaternion
from omnistream.metrics import VoxelCloud, cloud_errors, trajectory_similarity


def plane(count=12, step=0.5):
    x, y = torch.meshgrid(step * torch.arange(count), step * torch.arange(count), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1).flatten(0, 1).double()


def values(errors):
    return [float(error) for error in errors]


def test_a_plane_that_is_shifted_along_its_normal():
    found = cloud_errors(plane() + torch.tensor([0, 0, 0.1]), plane(), threshold=0.05)
    assert values(found) == pytest.approx([0.1] * 4 + [0] * 3, abs=1e-7)
    assert values(cloud_errors(plane() + torch.tensor([0, 0, 0.1]), plane(), threshold=0.2))[4:] == [1, 1, 1]


def test_a_sphere_of_another_radius():
    """The nearest point of a sphere about the origin is in the same direction."""
    directions = torch.nn.functional.normalize(torch.randn(500, 3, dtype=torch.float64), dim=1)
    assert values(cloud_errors(1.2 * directions, directions))[:4] == pytest.approx([0.2] * 4)


def test_half_of_a_line():
    """Of points 0 to 9 the first five are predicted, and one that is 2 off."""
    line = torch.zeros(10, 3)
    line[:, 0] = torch.arange(10)
    preds = torch.cat([line[:5], torch.tensor([[0.0, 2.0, 0.0]])])
    accuracy, accuracy_median, completeness, completeness_median, precision, recall, f_score = values(
        cloud_errors(preds, line, threshold=2.0)
    )
    assert (accuracy, accuracy_median) == pytest.approx((2 / 6, 0))
    assert (completeness, completeness_median) == pytest.approx(((1 + 2 + 3 + 4 + 5) / 10, 0.5))
    assert (precision, recall) == pytest.approx((5 / 6, 6 / 10))  # a distance of the threshold does not count
    assert f_score == pytest.approx(2 * (5 / 6) * 0.6 / (5 / 6 + 0.6))


def test_without_a_threshold_there_is_no_score():
    assert [math.isnan(value) for value in values(cloud_errors(plane(), plane()))] == [False] * 4 + [True] * 3


def test_aligned_by_the_cameras():
    """The prediction is in the frame of its own cameras, of a third of the size."""
    rotation = matrix_from_quaternion(torch.tensor([0.1, 0.2, -0.4, 0.8], dtype=torch.float64))
    own = Similarity(torch.tensor(1 / 3, dtype=torch.float64), rotation, torch.tensor([1.0, 2.0, 3.0]).double())
    centres = torch.randn(6, 3, dtype=torch.float64)
    cameras = make_pose(torch.eye(3, dtype=torch.float64).expand(6, 3, 3), centres)
    predicted = make_pose(rotation.expand(6, 3, 3), apply_similarity(own, centres))
    preds, similarity = apply_similarity(own, plane()), trajectory_similarity(predicted, cameras)
    assert values(cloud_errors(preds.float(), plane(), similarity))[:4] == pytest.approx([0] * 4, abs=1e-5)
    assert float(cloud_errors(preds, plane()).accuracy) > 1


def test_what_is_not_finite():
    broken = plane()
    broken[3, 1] = torch.nan
    assert torch.stack(cloud_errors(broken, plane())).isnan().all()
    assert torch.stack(cloud_errors(plane()[:0], plane())).isnan().all()
    assert values(cloud_errors(plane(), broken))[2:4] == pytest.approx([0, 0])  # truth that is not there
    assert cloud_errors(plane(), broken[3:4]) is None


def test_more_points_than_are_looked_up_at_once(monkeypatch):
    monkeypatch.setattr("omnistream.metrics.point_clouds._CHUNK", 7)
    found = cloud_errors(plane() + torch.tensor([0.1, 0, 0]), plane(), threshold=0.2)
    assert values(found) == pytest.approx([0.1] * 4 + [1] * 3)


class TestVoxelCloud:
    def test_the_mean_of_each_voxel(self):
        cloud = VoxelCloud(1.0)
        cloud.add(torch.tensor([[0.1, 0.5, 0.5], [2.5, 0.0, 0.0], [-0.5, -0.5, -0.5]]))
        cloud.add(torch.tensor([[0.3, 0.5, 0.5], [0.8, 0.5, 0.2]]))
        expected = torch.tensor([[-0.5, -0.5, -0.5], [0.4, 0.5, 0.4], [2.5, 0.0, 0.0]])
        torch.testing.assert_close(cloud.points.float(), expected)

    def test_any_chunks_give_the_same_cloud(self):
        points = 10 * torch.randn(3000, 3)
        whole, parts = VoxelCloud(2.0), VoxelCloud(2.0, buffer=100)
        whole.add(points)
        for part in points.split(70):
            parts.add(part)
        torch.testing.assert_close(parts.points, whole.points)
        assert len(whole.points) == len({tuple(row) for row in (points / 2).floor().long().tolist()}) < 3000

    def test_memory_does_not_grow_with_the_number_of_points(self):
        cloud = VoxelCloud(0.5, buffer=500)
        for _ in range(40):
            cloud.add(plane() + 0.01)
            assert len(cloud._sums) + sum(map(len, cloud._waiting)) <= 144 + 500
        assert len(cloud.points) == 144

    def test_nothing(self):
        assert VoxelCloud(1.0).points.shape == (0, 3)

    def test_bad_points_and_sizes(self):
        for bad in (torch.nan, torch.inf, 1.1e5):
            with pytest.raises(ValueError, match=r"points must be finite and at most 104858 from the origin"):
                VoxelCloud(0.1).add(torch.tensor([[0.0, bad, 0.0]]))
        with pytest.raises(ValueError, match="voxel must be positive, got 0"):
            VoxelCloud(0.0)

"""Errors of point clouds and point maps: how far predicted points are from the truth, and the truth from them."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from omnistream.cameras import Similarity, apply_similarity

_CHUNK = 1 << 18
"""Points of which the nearest neighbours are looked up at once."""
_VOXELS = 1 << 20
"""Voxels on either side of the origin along an axis: three indices and their signs fit into 63 bits."""


class CloudErrors(NamedTuple):
    """Errors of one cloud, float64 scalars in the unit of the truth; lower is better, but for the last three."""

    accuracy: Tensor
    """Mean distance of a predicted point from the nearest true one."""
    accuracy_median: Tensor
    """Median of the same; the mean of the two middle ones of an even number."""
    completeness: Tensor
    """Mean distance of a true point from the nearest predicted one."""
    completeness_median: Tensor
    """Median of the same."""
    precision: Tensor
    """Share of predicted points that are less than the threshold away from the truth; NaN without a threshold."""
    recall: Tensor
    """Share of true points that are less than the threshold away from the prediction."""
    f_score: Tensor
    """Harmonic mean of precision and recall; 0 if both are."""


def cloud_errors(
    preds: Float[Tensor, "N 3"],
    target: Float[Tensor, "M 3"],
    similarity: Similarity | None = None,
    threshold: float | None = None,
) -> CloudErrors | None:
    """Accuracy and completeness of a cloud.

    Clouds of long videos are made smaller by a `VoxelCloud` first: a search tree takes about 50 bytes per point, twice.

    Args:
        preds: Predicted points.
        target: True points; those that are not finite are left out.
        similarity: Applied to the prediction, such as `trajectory_similarity` of its cameras; by default nothing.
        threshold: Of precision and recall, in the unit of the truth.

    Returns:
        None if there is no true point; NaN if a predicted point is not finite, or there is none.
    """
    truth = target[target.isfinite().all(1)].double().cpu()
    points = preds.double().cpu()
    if similarity is not None:
        points = apply_similarity(Similarity(*[part.double().cpu() for part in similarity]), points)
    if not len(truth):
        return None
    if not len(points) or not points.isfinite().all():
        return CloudErrors(*torch.full((7,), torch.nan, dtype=torch.float64))
    forth, back = nearest_distances(points, truth), nearest_distances(truth, points)
    middle = [torch.tensor(np.median(distances.numpy())) for distances in (forth, back)]
    return CloudErrors(forth.mean(), middle[0], back.mean(), middle[1], *_scores(forth, back, threshold))


def nearest_distances(points: Float64[Tensor, "N 3"], others: Float64[Tensor, "M 3"]) -> Float64[Tensor, " N"]:
    """Distance of each point from the nearest of the others, of which there is at least one."""
    tree = cKDTree(others.numpy())
    found = [torch.from_numpy(tree.query(chunk.numpy())[0]) for chunk in points.split(_CHUNK)]
    return torch.cat(found)


def _scores(forth: Tensor, back: Tensor, threshold: float | None) -> tuple[Tensor, Tensor, Tensor]:
    if threshold is None:
        return (torch.full((), torch.nan, dtype=torch.float64),) * 3
    precision, recall = ((distances < threshold).double().mean() for distances in (forth, back))
    both = precision + recall
    return precision, recall, torch.where(both > 0, 2 * precision * recall / both, both)


class VoxelCloud:
    """A cloud of any number of points, of which one per voxel is kept: the mean of those that fell into it.

    Memory grows with the volume that the points fill, not with their number.

    Args:
        voxel: Side of a voxel, in the unit of the points.
        buffer: Points that are collected before they are merged.
    """

    def __init__(self, voxel: float, buffer: int = 1 << 20) -> None:
        if voxel <= 0:
            raise ValueError(f"voxel must be positive, got {voxel}")
        self.voxel, self.buffer = voxel, buffer
        self._keys = torch.zeros(0, dtype=torch.int64)
        self._sums = torch.zeros(0, 4, dtype=torch.float64)  # of x, y, z and 1
        self._waiting: list[Tensor] = []

    def add(self, points: Float[Tensor, "N 3"]) -> None:
        """Add points.

        Raises:
            ValueError: If a point is not finite or too far away for this size of voxels.
        """
        points = points.detach().double().cpu()
        if not (points.abs() <= self.reach).all():
            raise ValueError(
                f"points must be finite and at most {self.reach:g} from the origin for voxels of {self.voxel:g}"
            )
        self._waiting.append(points)
        if sum(map(len, self._waiting)) >= self.buffer:
            self._merge()

    @property
    def reach(self) -> float:
        """Largest coordinate of a point, on either side of the origin."""
        return (_VOXELS - 1) * self.voxel

    @property
    def points(self) -> Float64[Tensor, "K 3"]:
        """One point per voxel."""
        self._merge()
        return self._sums[:, :3] / self._sums[:, 3:]

    def _merge(self) -> None:
        points = torch.cat([self._sums.new_zeros(0, 3), *self._waiting])
        self._waiting = []
        keys = torch.cat([self._keys, _keys(points, self.voxel)])
        sums = torch.cat([self._sums, torch.cat([points, torch.ones_like(points[:, :1])], 1)])
        self._keys, places = keys.unique(return_inverse=True)
        self._sums = sums.new_zeros(len(self._keys), 4).index_add_(0, places, sums)


def _keys(points: Float64[Tensor, "N 3"], voxel: float) -> Int64[Tensor, " N"]:
    x, y, z = ((points / voxel).floor().long() + _VOXELS).unbind(1)
    return (x * 2 * _VOXELS + y) * 2 * _VOXELS + z

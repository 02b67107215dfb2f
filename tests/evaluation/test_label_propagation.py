"""Label propagation against numbers of the official implementations and against a slow, obvious twin."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from omnistream.evaluation import label_propagation
from omnistream.evaluation.label_propagation import (
    LabelPropagation,
    PropagationConfig,
    labels_to_mask,
    patch_labels,
    propagate_labels,
)

DINO = PropagationConfig()
DINOV3 = PropagationConfig(shape="circle", temperature=0.2, upsampling="nearest")


def oracle_features(t):
    """The video of the official numbers: feature d of patch (i, j) of frame t."""
    i, j, d = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), torch.arange(6.0), indexing="ij")
    return torch.sin(0.5 * i * (d % 3 + 1) + 0.7 * j * (d % 2 + 1) + 0.3 * t * (d + 1))


def oracle_mask():
    i, j = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    return ((j >= 2).long() + ((i >= 2) & (j >= 3)).long()).to(torch.uint8)


# facebookresearch/dino eval_video_segmentation.py and the notebook of facebookresearch/dinov3, run on that video:
# labels of the patches (1, 2), (3, 4) and (0, 0), and the sums over all patches.
OFFICIAL = [
    (PropagationConfig(radius=0), 1, [[0.085822, 0.889107, 0.025071], [0.064521, 0.010831, 0.924648],
     [0.910387, 0.089613, 0.0], [5.745669, 7.414116, 6.840214]]),
    (PropagationConfig(radius=12), 2, [[0.005193, 0.643772, 0.351035], [0.573020, 0.050100, 0.376880],
     [0.815278, 0.126095, 0.058627], [3.722275, 8.278638, 7.999088]]),
    (PropagationConfig(radius=1, top_k=3), 2, [[0.0, 0.418026, 0.581974], [0.0, 0.0, 1.0],
     [0.865497, 0.134503, 0.0], [2.926077, 7.852804, 9.221119]]),
    (PropagationConfig(radius=1, top_k=3, temperature=0.2, shape="circle"), 2, [[0.0, 0.590561, 0.409439],
     [0.0, 0.0, 1.0], [0.850999, 0.149001, 0.0], [3.324724, 8.346297, 8.328979]]),
    (PropagationConfig(temperature=0.2, shape="circle"), 2, [[0.032475, 0.610589, 0.356936],
     [0.548663, 0.096881, 0.354456], [0.793322, 0.111722, 0.094956], [4.648010, 8.531284, 6.820705]]),
]  # fmt: skip


@pytest.mark.parametrize("rows_at_once", [1, 2**22])
@pytest.mark.parametrize(("config", "frame", "expected"), OFFICIAL)
def test_labels_are_those_of_the_official_implementations(config, frame, expected, rows_at_once, monkeypatch):
    monkeypatch.setattr(label_propagation, "_SIMILARITIES_AT_ONCE", rows_at_once)
    video = LabelPropagation(oracle_features(0), patch_labels(oracle_mask(), (4, 5), 2), config)
    for t in range(1, frame + 1):
        found = video.step(oracle_features(t))
    values = torch.stack([found[1, 2], found[3, 4], found[0, 0], found.sum((0, 1))])
    torch.testing.assert_close(values, torch.tensor(expected), atol=2e-6, rtol=0)  # six decimals are known


def slow_labels(query, context, labels, config):
    """All candidates of one patch at a time."""
    found = torch.zeros(*query.shape[:2], labels.shape[-1])
    for i in range(query.shape[0]):
        for j in range(query.shape[1]):
            candidates = []
            for n in range(len(context)):
                for y in range(query.shape[0]):
                    for x in range(query.shape[1]):
                        distance = math.hypot(y - i, x - j) if config.shape == "circle" else max(abs(y - i), abs(x - j))
                        if not config.radius or distance <= config.radius:
                            candidates.append((float(query[i, j] @ context[n, y, x]), labels[n, y, x]))
            candidates.sort(key=lambda pair: -pair[0])
            last = candidates[min(config.top_k, len(candidates)) - 1][0]
            kept = [(math.exp(s / config.temperature), label) for s, label in candidates if s >= last]
            found[i, j] = sum(weight * label for weight, label in kept) / sum(weight for weight, _ in kept)
    return found


@pytest.mark.parametrize("shape", ["square", "circle"])
@pytest.mark.parametrize(("radius", "top_k"), [(0, 4), (1, 2), (2, 7), (3, 100)])
def test_every_patch_takes_labels_from_its_neighborhood(shape, radius, top_k, monkeypatch):
    monkeypatch.setattr(label_propagation, "_SIMILARITIES_AT_ONCE", 900)  # some rows at a time
    generator = torch.Generator().manual_seed(radius)
    query = F.normalize(torch.randn(7, 5, 6, generator=generator), dim=-1)
    context = F.normalize(torch.randn(3, 7, 5, 6, generator=generator), dim=-1)
    labels = torch.rand(3, 7, 5, 4, generator=generator).softmax(-1)
    config = PropagationConfig(radius=radius, shape=shape, top_k=top_k, temperature=0.3)
    found = propagate_labels(query, context, labels, config)
    torch.testing.assert_close(found, slow_labels(query, context, labels, config), atol=1e-5, rtol=0)


def test_constants_are_the_published_ones():
    expected = {"num_context_frames": 7, "radius": 12, "shape": "square", "top_k": 5, "temperature": 0.1}
    assert asdict(PropagationConfig()) == expected | {"upsampling": "bilinear"}
    assert PropagationConfig(num_context_frames=0, radius=0, top_k=1).radius == 0


@pytest.mark.parametrize(
    ("radius", "limit", "rows"), [(0, 1050, 2), (1, 500, 2), (1, 250, 1), (2, 10, 1), (3, 3675, 7)]
)
def test_as_many_rows_are_compared_at_once_as_the_limit_allows(monkeypatch, radius, limit, rows):
    shapes, weights = [], label_propagation._weights

    def recorded(similarity, config):
        shapes.append(tuple(similarity.shape))
        return weights(similarity, config)

    monkeypatch.setattr(label_propagation, "_weights", recorded)
    monkeypatch.setattr(label_propagation, "_SIMILARITIES_AT_ONCE", limit)
    context = F.normalize(torch.randn(3, 7, 5, 6), dim=-1)
    propagate_labels(context[0], context, torch.ones(3, 7, 5, 2), PropagationConfig(radius=radius))
    assert max(patches for patches, _ in shapes) == 5 * rows
    assert sum(patches for patches, _ in shapes) == 35
    reach = 7 if radius == 0 else min(7, rows + 2 * radius)
    assert max(candidates for _, candidates in shapes) == 3 * 5 * reach


def test_candidates_equal_to_the_last_one_are_kept():
    context = torch.ones(1, 1, 4, 1)
    labels = F.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 2).float()
    found = propagate_labels(torch.ones(1, 4, 1), context, labels, PropagationConfig(radius=0, top_k=2))
    torch.testing.assert_close(found[0], torch.tensor([[0.25, 0.75]]).expand(4, 2))


def test_context_is_the_first_frame_and_the_last_few(monkeypatch):
    seen = []

    def recorded(query, context, labels, config):
        seen.append([int(x) for x in labels[:, 0, 0, 0]])
        return torch.full((1, 1, 1), float(len(seen)))

    monkeypatch.setattr(label_propagation, "propagate_labels", recorded)
    video = LabelPropagation(torch.ones(1, 1, 2), torch.zeros(1, 1, 1), PropagationConfig(num_context_frames=2))
    for _ in range(5):
        video.step(torch.ones(1, 1, 2))
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]


@pytest.mark.parametrize("size", [(480, 854), (480, 910), (37, 61)])
@pytest.mark.parametrize("grid", [(30, 52), (30, 54), (9, 7)])
def test_masks_are_reduced_as_by_pillow(size, grid):
    mask = torch.randint(0, 3, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = np.asarray(Image.fromarray(mask.numpy()).resize(grid[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(patch_labels(mask, grid, 2).argmax(-1).numpy(), expected)


def test_void_is_background_and_a_lost_object_keeps_its_channel():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:, 4:], mask[0, 0] = 255, 3
    labels = patch_labels(mask, (2, 2), 3)
    assert labels.shape == (2, 2, 4)
    assert torch.equal(labels[..., 0], torch.ones(2, 2))
    assert labels[..., 1:].sum() == 0


def test_labels_become_masks_as_in_dino():
    labels = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    planes = F.interpolate(labels.permute(2, 0, 1)[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    for plane in planes:
        plane -= plane.min().clone()
        plane /= plane.max().clone()
    ids = Image.fromarray(planes.argmax(0).byte().numpy())
    expected = np.asarray(ids.resize((32, 16), Image.Resampling.NEAREST))  # no pixel is halfway
    assert np.array_equal(labels_to_mask(labels, (16, 32), (20, 24)).numpy(), expected)


def test_labels_become_masks_as_in_dinov3():
    labels = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    planes = F.interpolate(labels.permute(2, 0, 1)[None], (23, 31), mode="nearest")[0]
    low, high = planes.flatten(1).min(1).values[:, None, None], planes.flatten(1).max(1).values[:, None, None]
    expected = ((planes - low) / (high - low)).argmax(0)
    assert torch.equal(labels_to_mask(labels, (23, 31), (20, 24), "nearest").long(), expected)


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("winner", [0, 1])
def test_a_label_that_is_the_same_everywhere_is_not_divided_by_zero(upsampling, winner):
    labels = F.one_hot(torch.full((3, 4), winner), 3).float()
    assert torch.equal(labels_to_mask(labels, (6, 8), (6, 8), upsampling), torch.full((6, 8), winner).byte())


def test_half_precision_features_are_compared_in_full():
    video = LabelPropagation(oracle_features(0).half(), patch_labels(oracle_mask(), (4, 5), 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = video.step(oracle_features(1).half())
    exact = LabelPropagation(oracle_features(0).half().float(), patch_labels(oracle_mask(), (4, 5), 2))
    assert torch.equal(found, exact.step(oracle_features(1).half().float()))


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"temperature": 0.0}, {"radius": -1}, {"num_context_frames": -1}])
def test_constants_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="top_k >= 1 and temperature > 0"):
        PropagationConfig(**wrong)

"""Semantic segmentation metrics, against recorded numbers of the official code and against torchmetrics."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from omnistream import metrics as m
from omnistream.data.images.ade20k import reduce_zero_label


def two_images():
    """The images of the official numbers: five classes, of which the last is absent; raw label 0 is none."""
    k, i, j = (torch.arange(n) for n in (2, 6, 8))
    k, i, j = k[:, None, None], i[:, None], j
    raw = ((i // 2 + j // 3 + k) % 4).to(torch.uint8)
    preds = (i // 2 + (j + 1) // 3 + k + 3) % 4
    preds[1, 0, 0] = 3  # a pixel of class 0
    return preds, reduce_zero_label(raw).long()


def test_totals_and_values_of_the_official_code():
    preds, target = two_images()
    totals = m.class_totals(preds, target, 5)
    assert totals.intersection.tolist() == [15, 20, 20, 0, 0]
    assert totals.predicted.tolist() == [15, 26, 28, 7, 0]
    assert totals.labelled.tolist() == [22, 28, 26, 0, 0]
    expected = torch.tensor([0.681818, 0.588235, 0.588235, 0.0, torch.nan])
    torch.testing.assert_close(m.class_iou(preds, target, 5), expected, atol=1e-6, rtol=0, equal_nan=True)
    assert float(m.mean_iou(preds, target, 5)) == pytest.approx(0.464572, abs=1e-6)
    assert float(m.pixel_accuracy(preds, target, 5)) == pytest.approx(0.723684, abs=1e-6)
    assert float(m.mean_class_accuracy(preds, target, 5)) == pytest.approx(0.721778, abs=1e-6)
    per_image = [float(m.mean_iou(preds[n : n + 1], target[n : n + 1], 5)) for n in range(2)]
    assert np.mean(per_image) == pytest.approx(0.463690, abs=1e-6)  # not what is computed
    assert float(m.majority_mean_iou(preds, target, 5)) == pytest.approx(28 / 76 / 3, abs=1e-6)


def test_a_class_that_is_only_predicted_counts_zero_and_an_absent_one_not_at_all():
    target, preds = torch.tensor([[[0, 0, 1, 1, 2, 2]]]), torch.tensor([[[0, 1, 1, 1, 2, 3]]])
    expected = torch.tensor([0.5, 2 / 3, 0.5, 0.0, torch.nan])
    torch.testing.assert_close(m.class_iou(preds, target, 5), expected, equal_nan=True)
    assert float(m.mean_iou(preds, target, 5)) == pytest.approx(0.416667, abs=1e-6)
    assert float(m.mean_class_accuracy(preds, target, 5)) == pytest.approx(0.666667, abs=1e-6)


def test_the_mean_is_over_the_data_set_and_not_over_images():
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 0, 1]]])
    preds = torch.tensor([[[0, 0, 0, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 1, 1, 1]]])
    metric = m.MeanIoU(2)
    for image in range(2):
        metric.update(preds[image : image + 1], target[image : image + 1])
    assert float(metric.compute()) == pytest.approx(0.676136, abs=1e-6)  # per image: 0.649405
    torch.testing.assert_close(metric.class_iou, m.class_iou(preds, target, 2))


def test_equal_to_torchmetrics_over_many_batches():
    g = torch.Generator().manual_seed(0)
    ours, theirs = m.MeanIoU(7), MulticlassJaccardIndex(7, average="macro", ignore_index=255)
    for _ in range(4):
        scores, target = torch.randn(2, 7, 5, 6, generator=g), torch.randint(6, (2, 5, 6), generator=g)
        target[:, :2, :2] = 255
        scores[:, 6] = -9  # absent everywhere
        ours.update(scores, target)
        theirs.update(scores, target)
    torch.testing.assert_close(ours.compute(), theirs.compute())


def test_scores_that_are_nan_are_wrong():
    target, scores = torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, 2)
    scores[:, 0] = 1
    assert m.mean_iou(scores, target, 2) == 1
    scores[0, 1, 0, 0] = torch.nan
    assert m.predicted_classes(scores).tolist() == [[[-1, 0], [0, 0]]]
    assert m.mean_iou(scores, target, 2) == 0.75
    assert m.pixel_accuracy(scores, target, 2) == 0.75


def test_real_annotations_rolled(sample_data):
    metrics = {"miou": m.MeanIoU(150), "aacc": m.PixelAccuracy(150), "macc": m.MeanClassAccuracy(150)}
    for path in sorted((sample_data / "segmentation" / "sceneparsing" / "annotations").glob("*.png")):
        target = reduce_zero_label(torch.from_numpy(np.array(Image.open(path))))[None].long()
        # What is predicted as none counts for no class, but the labels there count.
        raw = torch.from_numpy(np.array(Image.open(path)))
        rolled = raw.roll((4, 6), (0, 1))[None].long() - 1
        for metric in metrics.values():
            metric.update(rolled, target)
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    assert values == pytest.approx({"aacc": 0.924731, "miou": 0.643730, "macc": 0.728197}, abs=1e-6)
    assert int((~metrics["miou"].class_iou.isnan()).sum()) == 15
    assert float(metrics["miou"].class_iou.nan_to_num().mean()) == pytest.approx(0.064373, abs=1e-6)


def test_wrong_inputs_are_named():
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labelled classes are from 0 to 7, outside \[0, 5\)"):
        m.mean_iou(target, torch.tensor([[[0, 7], [255, 1]]]), 5)
    with pytest.raises(ValueError, match=r"predicted classes are from 0 to 5"):
        m.mean_iou(target + torch.tensor([0, 5]), target, 5)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and labels \(1, 2, 2\) are not of the same pixels"):
        m.mean_iou(torch.zeros(1, 2, 3, dtype=torch.int64), target, 5)

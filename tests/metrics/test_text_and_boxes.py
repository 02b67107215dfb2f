import math

import pytest
import torch

from omnistream.boxes import Box
from omnistream.metrics import BoxIoU, ExactMatch, TokenLoss, matched_iou, unigram_entropy, word_accuracy


def test_unigram_entropy_in_closed_form():
    assert unigram_entropy(torch.tensor([4, 0, 4])) == pytest.approx(math.log(2))
    assert unigram_entropy(torch.tensor([1, 1, 2])) == pytest.approx(1.5 * math.log(2))
    assert unigram_entropy(torch.zeros(3)).isnan()


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [
        ("A red cube.", "a red cube", 1.0),
        ("cube red a", "a red cube", 1.0),
        ("a a a", "a red cube", 1 / 3),
        ("a red cube and more words", "a red cube", 0.5),
        ("", "a", 0.0),
        ("", "", 1.0),
    ],
)
def test_word_accuracy(pred, target, expected):
    assert word_accuracy([pred], [target]) == pytest.approx(expected)


def test_exact_match_minds_order_but_not_case_or_punctuation():
    metric = ExactMatch()
    metric.update(["A red cube.", "cube red a"], ["a red cube", "a red cube"])
    assert metric.compute() == 0.5


def test_token_loss_weights_every_token_alike():
    metric = TokenLoss()
    metric.update(torch.tensor(6.0), torch.tensor(3.0))
    metric.update(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    assert metric.compute() == 2.0


UNIT, HALF, FAR = Box(0.0, 0.0, 1.0, 1.0), Box(0.0, 0.0, 0.5, 1.0), Box(2.0, 2.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("preds", "target", "expected"),
    [
        ([UNIT], [UNIT], 1.0),
        ([HALF], [UNIT], 0.5),
        ([FAR, UNIT], [UNIT, FAR], 1.0),
        ([UNIT], [UNIT, FAR], 0.5),
        ([UNIT, UNIT, UNIT, UNIT], [UNIT], 0.25),
        ([HALF, UNIT], [UNIT, HALF], 1.0),
        ([], [UNIT], 0.0),
        ([], [], 1.0),
        ([Box(0.5, 0.5, 0.5, 0.5)], [Box(0.5, 0.5, 0.5, 0.5)], 0.0),
    ],
)
def test_boxes_are_matched_one_to_one(preds, target, expected):
    assert matched_iou(preds, target) == pytest.approx(expected)
    metric = BoxIoU()
    metric.update([preds, [UNIT]], [target, [UNIT]])
    assert metric.compute() == pytest.approx((expected + 1) / 2)

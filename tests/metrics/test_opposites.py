import torch

from omnistream.metrics import OppositeAccuracy, opposite_accuracy


def test_only_the_opposite_counts():
    preds = torch.tensor([[0.1, 0.0, 9.0, 8.0], [0.0, 0.1, 9.0, 8.0], [0.5, 0.5, 0.0, 0.0], [1.0, 1.0, 2.0, 3.0]])
    target = torch.tensor([0, 0, 1, 3])
    assert opposite_accuracy(preds, target) == (1 + 0 + 0.5 + 1) / 4
    metric = OppositeAccuracy()
    metric.update(preds[:1], target[:1])
    metric.update(preds[1:], target[1:])
    assert metric.compute() == 0.625
    assert metric.standard_error == torch.tensor([1.0, 0.0, 0.5, 1.0]).std() / 2

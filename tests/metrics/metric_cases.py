"""Every metric of the library with its twin and inputs; `test_every_metric.py` runs them all."""

import torch
from metric_tester import MetricCase

from omnistream import metrics as m
from omnistream.boxes import Box

WORDS = ("a", "red", "cube", "left", "of", "blue", "ball")


def _generator(count):
    return torch.Generator().manual_seed(count)


def depth(count):
    g = _generator(count)
    target = torch.rand(count, 2, 6, 7, generator=g) * 5 + 0.5
    preds = target * (0.7 + 0.6 * torch.rand(target.shape, generator=g))
    return preds, target, torch.rand(target.shape, generator=g) > 0.3


def true_depth(count):
    return depth(count)[1:]


def scores(count):
    g = _generator(count)
    return torch.randn(count, 5, generator=g), torch.randint(5, (count,), generator=g)


def pairs(count):
    g = _generator(count)
    return torch.randn(count, 6, generator=g).round(), torch.randint(6, (count,), generator=g)


def texts(count):
    g = _generator(count)

    def text():
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (3,), generator=g).tolist())

    target = [text() for _ in range(count)]
    return [true.upper() + "." if i % 3 == 0 else text() for i, true in enumerate(target)], target


def boxes(count):
    g = _generator(count)

    def some(number):
        corners = torch.rand(number, 2, 2, generator=g).sort(1).values.flatten(1)
        return [Box(*box) for box in corners.tolist()]

    return [some(i % 3 + 1) for i in range(count)], [some(2) for _ in range(count)]


def token_sums(count):
    g = _generator(count)
    return torch.rand(count, generator=g) * 9, torch.randint(1, 9, (count,), generator=g)


def token_counts(count):
    return (torch.randint(4, (count, 11), generator=_generator(count)),)


def trajectories(count):
    """Noisy walks, and predictions of them in another frame and scale; one reference stands still."""
    g = _generator(count)
    target = torch.eye(4).repeat(count, 6, 1, 1)
    target[..., :3, 3] = torch.randn(count, 6, 3, generator=g).cumsum(1)
    target[0, :, :3, 3] = 1.0
    preds = target.clone()
    preds[..., :3, 3] = 0.3 * (target[..., :3, 3] + 0.05 * torch.randn(count, 6, 3, generator=g)) + 2
    angle = 0.1 * torch.randn(count, 6, generator=g)
    preds[..., 0, 0], preds[..., 0, 1] = angle.cos(), -angle.sin()
    preds[..., 1, 0], preds[..., 1, 1] = angle.sin(), angle.cos()
    return preds, target


def segmentations(count):
    """Five classes, of which the last never occurs; a tenth of the pixels has none."""
    g = _generator(count)
    target = torch.randint(4, (count, 4, 6), generator=g)
    preds = torch.where(
        torch.rand(target.shape, generator=g) < 0.6, target, torch.randint(4, target.shape, generator=g)
    )
    return preds, torch.where(torch.rand(target.shape, generator=g) < 0.1, 255, target)


def object_scores(count):
    return (torch.rand(count, 13, generator=_generator(count)),)


def sequence_values(count):
    """One value per sequence, and weights, of which one is 0."""
    g = _generator(count)
    weights = torch.randint(1, 9, (count,), generator=g).float()
    weights[:1] = 0
    return torch.rand(count, generator=g), weights


def nan_at_the_end(inputs):
    preds = inputs[0].clone()
    preds[-1] = torch.nan
    return preds, *inputs[1:]


def _unigram(counts):
    return m.unigram_entropy(counts.sum(0))


class _Rows(m.UnigramEntropy):
    """Takes the counts of several samples at once, as every other metric here."""

    def update(self, counts):
        for row in counts:
            super().update(row)


BANK = torch.randn(20, 5, generator=_generator(20)), torch.arange(20) % 5


def _knn(preds, target, k):
    return m.knn_accuracy(preds, target, *BANK, k)


class _Nearest(m.KNNAccuracy):
    """Among the samples of `BANK`."""

    def __init__(self, k):
        super().__init__(*BANK, k)


ALIGNED = [
    MetricCase(metric, function, depth, {"alignment": alignment}, broken=nan_at_the_end, tolerance=1e-5)
    for metric, function in ((m.AbsRel, m.abs_rel), (m.DepthRMSE, m.depth_rmse), (m.DeltaAccuracy, m.delta_accuracy))
    for alignment in ("none", "median", "scale", "scale_shift")
] + [
    MetricCase(metric, function, depth, {"alignment": "none"}, broken=nan_at_the_end, tolerance=1e-5)
    for metric, function in (
        (m.SqRel, m.sq_rel),
        (m.LogRMSE, m.log_rmse),
        (m.Log10Error, m.log10_error),
        (m.SILog, m.silog),
    )
]
CASES = [
    *ALIGNED,
    MetricCase(m.ConstantAbsRel, m.constant_abs_rel, true_depth, tolerance=2e-3),
    MetricCase(m.ConstantDepthRMSE, m.constant_depth_rmse, depth),
    MetricCase(m.TopKAccuracy, m.top_k_accuracy, scores, {"k": 1}, broken=None),
    MetricCase(m.TopKAccuracy, m.top_k_accuracy, scores, {"k": 3}),
    MetricCase(m.OppositeAccuracy, m.opposite_accuracy, pairs, broken=nan_at_the_end),
    MetricCase(m.MajorityAccuracy, m.majority_accuracy, scores, state_options={"num_classes": 5}),
    MetricCase(_Nearest, _knn, scores, {"k": 7}),
    MetricCase(m.ExactMatch, m.exact_match, texts),
    MetricCase(m.WordAccuracy, m.word_accuracy, texts),
    MetricCase(m.BoxIoU, m.mean_matched_iou, boxes),
    MetricCase(m.TokenLoss, m.token_loss, token_sums, broken=nan_at_the_end),
    MetricCase(_Rows, _unigram, token_counts, state_options={"vocab_size": 11}),
    *(
        MetricCase(metric, function, segmentations, {"num_classes": 5})
        for metric, function in (
            (m.MeanIoU, m.mean_iou),
            (m.PixelAccuracy, m.pixel_accuracy),
            (m.MeanClassAccuracy, m.mean_class_accuracy),
            (m.MajorityMeanIoU, m.majority_mean_iou),
        )
    ),
    *(
        MetricCase(metric, function, trajectories, {"alignment": alignment}, broken=nan_at_the_end, tolerance=2e-6)
        for metric, function, alignment in (
            (m.AbsoluteTrajectoryError, m.absolute_trajectory_error, "sim3"),
            (m.AbsoluteTrajectoryError, m.absolute_trajectory_error, "none"),
            (m.RelativeTranslationError, m.relative_translation_error, "sim3"),
            (m.RelativeTranslationError, m.relative_translation_error, "se3"),
            (m.RelativeRotationError, m.relative_rotation_error, "sim3"),
            (m.RelativeRotationError, m.relative_rotation_error, "scale"),
        )
    ),
    *(
        MetricCase(metric, m.weighted_mean, sequence_values, broken=nan_at_the_end)
        for metric in (m.SequenceError, m.SequenceAccuracy)
    ),
    *(
        MetricCase(metric, function, object_scores)
        for metric, function in (
            (m.ScoreMean, m.score_mean),
            (m.ScoreRecall, m.score_recall),
            (m.ScoreDecay, m.score_decay),
        )
    ),
]

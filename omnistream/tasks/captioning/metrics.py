"""Validation of captioning: token loss and, by kind of target, the accuracy of generated answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from omnistream.data.batch import Region, TextTarget
from omnistream.language.prompts import parse_regions, strip_markup
from omnistream.metrics.boxes import BoxIoU
from omnistream.metrics.text import ExactMatch, TokenLoss, UnigramEntropy, WordAccuracy


@dataclass(frozen=True)
class CaptionSample:
    """One generated answer, kept for plots."""

    images: Tensor
    """uint8 [T, 3, H, W], on the CPU."""
    target: TextTarget
    """The text target."""
    instruction: str
    """The prompt."""
    answer: str
    """The true answer, with phrase and box tokens."""
    generated: str
    """The model's answer, with phrase and box tokens."""

    @property
    def regions(self) -> list[Region]:
        """Boxes in the generated answer."""
        return parse_regions(self.generated)


class CaptionMetrics(nn.Module):
    """Token loss over all samples, with two baselines; exact match, word accuracy and box IoU of the generated ones.

    `token_loss_unigram` is the loss of the token frequencies of the answers alone, `token_loss_other_image` that of
    the model when every sample is shown its neighbour's image: a model that uses the image is better than both.
    `exact_match` compares the words without boxes, and so does `word_accuracy`, in any order. `box_iou` counts
    only samples that ask for boxes.

    Args:
        vocab_size: Size of the tokenizer's vocabulary.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.token_loss = TokenLoss()
        self.token_loss_unigram = UnigramEntropy(vocab_size)
        self.token_loss_other_image = TokenLoss()
        self.exact_match = ExactMatch()
        self.word_accuracy = WordAccuracy()
        self.box_iou = BoxIoU()

    def update(self, samples: Sequence[CaptionSample]) -> None:
        """Add generated answers."""
        generated = [strip_markup(sample.generated) for sample in samples]
        answers = [strip_markup(sample.answer) for sample in samples]
        self.exact_match.update(generated, answers)
        self.word_accuracy.update(generated, answers)
        asked = [sample for sample in samples if sample.target.task in ("ocr", "grounding")]
        true = [[region.box for region in sample.target.regions] for sample in asked]
        self.box_iou.update([[region.box for region in sample.regions] for sample in asked], true)

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name; those without any sample on any process are left out."""
        self.update([])  # torchmetrics warns about metrics that were never updated, but here that is not a mistake
        # Computing first: it sums over processes, so that all of them leave out the same ones.
        return {name: value for name, metric in self.named_children() if (value := metric.compute()).isfinite()}  # type: ignore[operator]

    def reset(self) -> None:
        """Reset all metrics."""
        for metric in self.children():
            metric.reset()  # type: ignore[operator]

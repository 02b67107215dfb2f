"""The vision-language objective: caption, read, locate and name, with gradients into the backbone (paper Sec. 3.3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from omnistream.backbone import OmniStream
from omnistream.data.batch import CaptionClip, TextTarget
from omnistream.distributed import average_count
from omnistream.language.chat import Chat, tokenize_chat
from omnistream.language.decoder import (
    DecoderConfig,
    DecoderOutput,
    LanguageDecoder,
    pretrained_llm,
    random_llm,
)
from omnistream.language.projector import Projector, TokenReduction
from omnistream.language.prompts import Prompt, make_prompt
from omnistream.language.tokenizer import ByteTokenizer, PretrainedTokenizer, Tokenizer
from omnistream.tasks.captioning.metrics import CaptionMetrics, CaptionSample
from omnistream.tasks.captioning.plots import captioning_plots
from omnistream.tasks.nonfinite import NonFiniteConfig
from omnistream.tasks.objective import Objective, ObjectiveLoss
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.plots import Plot


@dataclass(frozen=True)
class SummedLoss:
    """A sum over answer tokens and their number; sums of many batches make an exact mean."""

    total: Tensor
    """Cross-entropy in nats, summed."""
    count: Tensor
    """Answer tokens."""


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


class CaptioningModule(Objective):
    """Next-token loss of answers about images and clips.

    The patch tokens of the last layer, projected, stand in the user's turn of a chat; the decoder answers. The loss is
    the mean over all answer tokens of all processes. Where the paper is silent (projector, prompt format, whether the
    decoder trains) the defaults are LLaVA's projector, Qwen's chat format and a trained decoder.

    Args:
        backbone: Given when fitted alone.
        optimizer: Used when fitted alone.
        decoder: Name or local folder of a Qwen3 (the paper's is Qwen/Qwen3-0.6B) whose tokenizer is used with it, or
            sizes of a random one that reads bytes.
        train_decoder: Whether the decoder's weights are trained. A text-only checkpoint may never have trained the rows
            of the box tokens, which stay as they are if this is off.
        projector: `mlp2x_gelu` (any number of layers), `linear` or `identity`.
        token_reduction: `none`, `avgpool2x2` or `pixel_shuffle2x2`.
        max_text_tokens: Instruction and answer beyond this are cut on the right.
        max_new_tokens: Longest generated answer.
        loss_chunk_size: Rows of logits held at a time.
        activation_checkpointing: Recompute the decoder's blocks in the backward pass.
        num_generations: Answers generated at each validation, from its first samples.
        nonfinite: Used when fitted alone.
        compile: Used when fitted alone.
        seed: Used when fitted alone.
    """

    task_name = "captioning"

    samples: list[CaptionSample]
    """Answers generated since validation began, for plots."""

    def __init__(
        self,
        backbone: OmniStream | None = None,
        optimizer: OptimizerConfig | None = None,
        *,
        decoder: str | DecoderConfig = DecoderConfig(),  # noqa: B008 (frozen)
        train_decoder: bool = True,
        projector: str = "mlp2x_gelu",
        token_reduction: TokenReduction = "none",
        max_text_tokens: int = 512,
        max_new_tokens: int = 128,
        loss_chunk_size: int = 1024,
        activation_checkpointing: bool = False,
        num_generations: int = 16,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, nonfinite=nonfinite, compile=compile, seed=seed)
        if max_text_tokens < 1 or max_new_tokens < 1 or loss_chunk_size < 1 or num_generations < 0:
            raise ValueError(
                "max_text_tokens, max_new_tokens, loss_chunk_size must be positive, num_generations not negative; "
                f"got {max_text_tokens}, {max_new_tokens}, {loss_chunk_size}, {num_generations}"
            )
        self._decoder, self._train_decoder = decoder, train_decoder
        self._projector, self._token_reduction = projector, token_reduction
        self._decoder_options: dict[str, Any] = {
            "loss_chunk_size": loss_chunk_size,
            "activation_checkpointing": activation_checkpointing,
        }
        self.max_text_tokens, self.max_new_tokens = max_text_tokens, max_new_tokens
        self.num_generations = num_generations
        self.samples = []
        self._metrics_read = False
        self.record_arguments(locals())
        self.attach(backbone)

    def build(self, backbone: OmniStream) -> None:
        """Create decoder and projector."""
        if isinstance(self._decoder, str):
            tokenizer: Tokenizer = PretrainedTokenizer(self._decoder)
            llm = pretrained_llm(self._decoder)
        else:
            tokenizer = ByteTokenizer()
            llm = random_llm(self._decoder, tokenizer.vocab_size)
        self.decoder = LanguageDecoder(llm, tokenizer, trainable=self._train_decoder, **self._decoder_options)
        self.projector = Projector(
            backbone.embed_dim,
            self.decoder.embed_dim,
            kind=self._projector,
            token_reduction=self._token_reduction,
        )
        self.metrics = CaptionMetrics(tokenizer.vocab_size)

    @property
    def tokenizer(self) -> Tokenizer:
        """The decoder's tokenizer."""
        return self.decoder.tokenizer

    def prompts(self, batch: CaptionClip) -> list[Prompt]:
        """Instruction and answer of every sample of a batch, chosen by its seeds."""
        return [make_prompt(target, seed) for target, seed in zip(_targets(batch), batch.seed.tolist(), strict=True)]

    def chats(self, batch: CaptionClip) -> list[Chat]:
        """Token ids of every sample's exchange."""
        return [tokenize_chat(self.tokenizer, prompt, self.max_text_tokens) for prompt in self.prompts(batch)]

    def visual_tokens(self, backbone: nn.Module, batch: CaptionClip) -> Float[Tensor, "B N E"]:
        """Projected patch tokens of the images; gradients reach the backbone."""
        output = backbone(backbone.normalize(batch.images))  # type: ignore[operator]
        return self.projector(output.last)

    def compute(self, backbone: nn.Module, batch: CaptionClip, step: int) -> ObjectiveLoss:
        """Mean token loss; the term `token`; the details hold the local mean of each kind of target.

        In eval mode `aux` holds `visual` (the visual tokens) and `token_loss` (`SummedLoss`) without gradient.
        """
        visual = self.visual_tokens(backbone, batch)
        output: DecoderOutput = self.decoder(visual, self.chats(batch))
        assert output.loss is not None
        assert output.num_tokens is not None
        total = output.loss.sum() / average_count(output.num_tokens.sum())
        details: dict[str, Tensor] = {}
        tasks = [target.task for target in _targets(batch)]
        for task in sorted(set(tasks)):
            chosen = torch.tensor([t == task for t in tasks]).to(output.loss.device, non_blocking=True)
            details[task] = (output.loss * chosen).sum().detach() / (output.num_tokens * chosen).sum().clamp_min(1)
        aux = {} if self.training else {"visual": visual.detach(), "token_loss": _summed(output)}
        return ObjectiveLoss(total, {"token": total.detach()}, details, aux)

    def token_loss(self, backbone: nn.Module, batch: CaptionClip, shuffle_images: bool = False) -> SummedLoss:
        """Loss of the true answers in evaluation mode, without gradient.

        Args:
            backbone: The backbone.
            batch: Samples.
            shuffle_images: Give every sample its neighbour's images: what the text alone predicts.

        Raises:
            ValueError: If images are to be shuffled in a batch of one.
        """
        if shuffle_images and len(batch.images) < 2:
            raise ValueError("shuffle_images needs at least two samples in a batch")
        with _evaluating(backbone, self.decoder, self.projector):
            visual = self.visual_tokens(backbone, batch)
            return _summed(self.decoder(visual.roll(int(shuffle_images), dims=0), self.chats(batch)))

    def generate(self, backbone: nn.Module, batch: CaptionClip, max_new_tokens: int | None = None) -> list[str]:
        """Greedy answers with phrase and box tokens spelled out, in evaluation mode."""
        with _evaluating(backbone, self.decoder, self.projector):
            return self._generate(self.visual_tokens(backbone, batch), self.chats(batch), max_new_tokens)

    def _generate(self, visual: Tensor, chats: list[Chat], max_new_tokens: int | None = None) -> list[str]:
        output: DecoderOutput = self.decoder(
            visual, chats, self.max_new_tokens if max_new_tokens is None else max_new_tokens
        )
        assert output.generated is not None
        return [self.tokenizer.decode(ids) for ids in output.generated]

    def answer_token_counts(self, batch: CaptionClip) -> Int64[Tensor, " V"]:
        """How often each token occurs in the true answers; `metrics.unigram_entropy` of it is a blind baseline."""
        answers = torch.tensor([token for item in self.chats(batch) for token in item.answer], dtype=torch.int64)
        return torch.bincount(answers, minlength=self.tokenizer.vocab_size)

    def update_metrics(self, backbone: nn.Module, batch: CaptionClip, loss: ObjectiveLoss) -> None:
        """Add a validation batch to `metrics`, from the visual tokens that `compute` made in eval mode.

        Answers are generated until there are `num_generations` of them, and are also appended to `samples`.
        """
        if self._metrics_read:
            self.samples, self._metrics_read = [], False
        visual, summed = loss.aux["visual"], loss.aux["token_loss"]
        self.metrics.token_loss.update(summed.total, summed.count)
        self.metrics.token_loss_unigram.update(self.answer_token_counts(batch))
        with torch.no_grad():
            if len(visual) > 1:
                other = _summed(self.decoder(visual.roll(1, dims=0), self.chats(batch)))
                self.metrics.token_loss_other_image.update(other.total, other.count)
            left = self.num_generations - len(self.samples)
            if isinstance(batch.index, list):  # the first samples of the set, whichever process has them
                left = sum(index < self.num_generations for index in batch.index)
            if left > 0:
                samples = self._answered(batch, visual[:left])
                self.metrics.update(samples)
                self.samples += samples

    def _answered(self, batch: CaptionClip, visual: Tensor) -> list[CaptionSample]:
        """Generated answers of the first samples, those that `visual` has."""
        number = len(visual)
        answers = self._generate(visual, self.chats(batch)[:number])
        return [
            CaptionSample(images.cpu(), target, prompt.instruction, prompt.answer, generated)
            for images, target, prompt, generated in zip(
                batch.images[:number], _targets(batch)[:number], self.prompts(batch)[:number], answers, strict=True
            )
        ]

    def compute_metrics(self) -> dict[str, Tensor]:
        """The metrics since the last call, and a fresh start; `samples` stay for plots until the next validation."""
        results = self.metrics.compute()
        self.metrics.reset()
        self._metrics_read = True
        return results

    def plots(self, backbone: nn.Module, batch: CaptionClip, limit: int) -> dict[str, Plot]:
        """Answers generated so far in this validation; see `tasks.plots.HasPlots`."""
        return captioning_plots(self.samples, 3 * limit)

    def fsdp_units(self) -> list[nn.Module]:
        """The decoder's blocks, then the rest of the decoder, then the projector."""
        return [*self.decoder.llm.model.layers, self.decoder, self.projector]


def _targets(batch: CaptionClip) -> list[TextTarget]:
    if not isinstance(batch.target, list):
        raise ValueError("expected a batch; collate samples with CaptionClip.collate")
    return batch.target


def _summed(output: DecoderOutput) -> SummedLoss:
    assert output.loss is not None
    assert output.num_tokens is not None
    return SummedLoss(output.loss.detach().sum(), output.num_tokens.sum())

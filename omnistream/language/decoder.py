"""The causal language model that reads visual tokens: Qwen3, pretrained, or small with random weights."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from omnistream.distributed import all_reduce
from omnistream.language.chat import IGNORED, Chat, ChatBatch, collate_chats
from omnistream.language.cross_entropy import chunked_cross_entropy
from omnistream.language.tokenizer import Tokenizer


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a randomly initialised Qwen3; the defaults learn on a CPU."""

    hidden_size: int = 128
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int = 2
    """Key and value heads."""
    head_dim: int = 32
    """Width of a head."""
    intermediate_size: int = 384
    """Width inside the feed-forward layers."""
    max_positions: int = 4096
    """Longest sequence, visual tokens included."""

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise ValueError(f"all sizes of the decoder must be positive; got {self}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")


def random_llm(config: DecoderConfig, vocab_size: int) -> nn.Module:
    """A Qwen3 with random weights and tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            # Qwen3's 0.02 at its width of 1024, with as much signal at small widths.
            initializer_range=0.02 * (1024 / config.hidden_size) ** 0.5,
        )
    )


def pretrained_llm(name: str | Path) -> nn.Module:
    """A causal language model by hub name or local folder, with float32 weights; autocast sets the compute dtype."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)


def _cache_argument(model: nn.Module) -> str:
    # transformers 5.24 renamed it; the old name goes in 5.40.
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _causal_mask(model: Any) -> dict[str, None] | None:
    """The `attention_mask` of sequences padded on the right, which need none beyond causality.

    Given nothing, transformers looks for several sequences packed into one row, and waits for the device to know. A
    prepared mask of None means causal attention to SDPA; other kernels get their mask from transformers.
    """
    config = model.config
    prepared = (
        config.model_type in ("qwen2", "qwen3")
        and config._attn_implementation == "sdpa"
        and set(config.layer_types) == {"full_attention"}
    )
    return {"full_attention": None} if prepared else None


class DecoderOutput(NamedTuple):
    """What `LanguageDecoder` returns.

    A tuple, not a dataclass, so that FSDP2 finds the tensors in it. `loss` [B]: summed token loss of each sample.
    `num_tokens` [B]: its answer tokens. `generated`: token ids of each answer, without im_end, if answers are
    generated.
    """

    loss: Tensor | None
    num_tokens: Tensor | None
    generated: list[list[int]] | None


class LanguageDecoder(nn.Module):
    """Token loss or greedy answers of a causal language model given visual tokens.

    Everything goes through `forward`, also the output projection, the loss and generation, so that a wrapper that
    gathers parameters around `forward` (FSDP2) may shard this module as a whole and its transformer blocks, but not the
    output projection alone.

    Args:
        llm: A causal language model of transformers.
        tokenizer: Its tokenizer.
        trainable: Whether its weights are trained; gradients reach the visual tokens either way.
        loss_chunk_size: Rows of logits held at a time.
        activation_checkpointing: Recompute the blocks in the backward pass.

    Raises:
        ValueError: If the embedding has fewer rows than the tokenizer has tokens.
    """

    def __init__(
        self,
        llm: nn.Module,
        tokenizer: Tokenizer,
        *,
        trainable: bool = True,
        loss_chunk_size: int = 1024,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        model: Any = llm  # a transformers class, whose methods nn.Module does not have
        self.llm: Any = model
        self.tokenizer, self.loss_chunk_size = tokenizer, loss_chunk_size
        rows, self.embed_dim = model.get_input_embeddings().weight.shape
        if rows < tokenizer.vocab_size:
            raise ValueError(
                f"the decoder has {rows} embedding rows for {tokenizer.vocab_size} tokens; use its own tokenizer"
            )
        self.llm.requires_grad_(trainable)
        if activation_checkpointing:
            # transformers 5 renamed it and warns at the old name.
            new_name = getattr(model, "activation_checkpointing_enable", None)
            (new_name or model.gradient_checkpointing_enable)()

    def forward(
        self, visual: Float[Tensor, "B N E"], chats: Sequence[Chat], max_new_tokens: int | None = None
    ) -> DecoderOutput:
        """The loss of the answers, or, with `max_new_tokens`, greedy answers.

        Args:
            visual: Projected visual tokens.
            chats: One exchange per sample.
            max_new_tokens: Generate at most this many tokens; no loss then.
        """
        generating = max_new_tokens is not None
        batch = collate_chats(chats, visual.shape[1], self.tokenizer, prompts_only=generating)
        if generating:
            return DecoderOutput(None, None, self._generate(batch, visual, int(max_new_tokens or 0)))
        return self._loss(batch, visual)

    def _embed(self, batch: ChatBatch, visual: Tensor) -> Tensor:
        # Positions are found on the host: a mask on the device would make the backward pass wait for it.
        places = batch.visual.flatten().nonzero()[:, 0].to(visual.device, non_blocking=True)
        text = self.llm.get_input_embeddings()(batch.ids.to(visual.device, non_blocking=True))
        tokens = rearrange(visual.to(text.dtype), "b n e -> (b n) e")
        mixed = rearrange(text, "b l e -> (b l) e").index_copy(0, places, tokens)
        return rearrange(mixed, "(b l) e -> b l e", b=len(text))

    def _loss(self, batch: ChatBatch, visual: Tensor) -> DecoderOutput:
        # The positions are known on the host: indices instead of a boolean mask avoid waiting for the device.
        sample, position = (batch.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        target = batch.labels[sample, position + 1]
        sample, position, target = (x.to(visual.device, non_blocking=True) for x in (sample, position, target))
        hidden = self.llm.model(
            inputs_embeds=self._embed(batch, visual), attention_mask=_causal_mask(self.llm), use_cache=False
        ).last_hidden_state
        zeros = hidden.new_zeros(len(hidden), dtype=torch.float32)
        count = zeros.index_add(0, sample, torch.ones_like(sample, dtype=torch.float32))
        if len(sample) == 0:  # keeps the graph: every process must take part in the backward pass
            return DecoderOutput(zeros + 0.0 * hidden.float().sum(), count, None)
        weight = self.llm.get_output_embeddings().weight
        losses = chunked_cross_entropy(hidden[sample, position], weight, target, self.loss_chunk_size)
        return DecoderOutput(zeros.index_add(0, sample, losses), count, None)

    @torch.no_grad()
    def _generate(self, batch: ChatBatch, visual: Tensor, max_new_tokens: int) -> list[list[int]]:
        from transformers import DynamicCache

        control = self.tokenizer.control
        weight = self.llm.get_output_embeddings().weight
        mask, inputs = batch.attended.to(visual.device).long(), self._embed(batch, visual)
        cache = {_cache_argument(self.llm.model): DynamicCache()}
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        finished = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        tokens: list[Tensor] = []
        for _ in range(max_new_tokens):
            output = self.llm.model(
                inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=True, **cache
            )
            token = F.linear(output.last_hidden_state[:, -1], weight).argmax(-1)
            finished |= (token == control.im_end) | (token == control.endoftext)
            tokens.append(torch.where(finished, control.endoftext, token))
            # Sharded parameters are gathered together, so all processes must make the same number of steps.
            if not bool(all_reduce((~finished).any().float(), op="max")):
                break
            inputs = self.llm.get_input_embeddings()(tokens[-1][:, None])
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1
        rows = torch.stack(tokens, dim=1).tolist() if tokens else [[] for _ in range(len(mask))]
        return [row[: row.index(control.endoftext)] if control.endoftext in row else row for row in rows]

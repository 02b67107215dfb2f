r"""One exchange about an image as token ids, and batches of them with labels.

    <|im_start|>user\n<|vision_start|> V <|vision_end|>\n{instruction}<|im_end|>\n
    <|im_start|>assistant\n{answer}<|im_end|>

(on one line, V the visual tokens). There is no think block, neither in training nor in generation, so both see the same
prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from omnistream.language.prompts import Prompt
from omnistream.language.tokenizer import Tokenizer

IGNORED = -100
"""Label of positions that carry no loss."""


@dataclass(frozen=True)
class Chat:
    """Token ids of one exchange."""

    before: list[int]
    """Up to the visual tokens."""
    after: list[int]
    """From the visual tokens to where the answer starts."""
    answer: list[int]
    """The answer and the closing im_end; the only positions with a loss. Without im_end if it was cut."""


def tokenize_chat(tokenizer: Tokenizer, prompt: Prompt, max_text_tokens: int) -> Chat:
    """Token ids of an exchange; text beyond `max_text_tokens` (after the visual tokens) is cut on the right."""
    control = tokenizer.control
    before = [control.im_start, *tokenizer.encode("user\n"), control.vision_start]
    after = [control.vision_end, *tokenizer.encode("\n" + prompt.instruction, markup=True), control.im_end]
    after += [*tokenizer.encode("\n"), control.im_start, *tokenizer.encode("assistant\n")]
    answer = [*tokenizer.encode(prompt.answer, markup=True), control.im_end]
    return Chat(before, after[:max_text_tokens], answer[: max(max_text_tokens - len(after), 0)])


@dataclass(frozen=True)
class ChatBatch:
    """Exchanges padded to one length, on the CPU.

    Attributes:
        ids: int64 [B, L]; image_pad where visual tokens go.
        labels: int64 [B, L]; the id itself at answer positions, else -100. Not shifted.
        attended: bool [B, L]; False at padding.
        visual: bool [B, L]; True at visual tokens, equally many in each row.
    """

    ids: Int64[Tensor, "B L"]
    labels: Int64[Tensor, "B L"]
    attended: Bool[Tensor, "B L"]
    visual: Bool[Tensor, "B L"]


def collate_chats(
    chats: Sequence[Chat], num_visual: int, tokenizer: Tokenizer, *, prompts_only: bool = False
) -> ChatBatch:
    """Pad exchanges: on the right with answers for training, or prompts alone, on the left, for generation.

    Right padding needs no attention mask under causal attention, as no real token can see what follows it.

    Args:
        chats: The exchanges.
        num_visual: Visual tokens per sample.
        tokenizer: For the ids of padding and place holders.
        prompts_only: Leave the answers out and pad on the left.
    """
    rows = [c.before + [tokenizer.control.image_pad] * num_visual + c.after for c in chats]
    answers = [[] if prompts_only else c.answer for c in chats]
    length = max(len(row) + len(answer) for row, answer in zip(rows, answers, strict=True))
    ids = torch.full((len(chats), length), tokenizer.control.endoftext, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    attended, visual = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, (item, row, answer) in enumerate(zip(chats, rows, answers, strict=True)):
        start = length - len(row) if prompts_only else 0
        end = start + len(row) + len(answer)
        ids[i, start:end] = torch.tensor(row + answer)
        labels[i, end - len(answer) : end] = torch.tensor(answer, dtype=torch.int64)
        attended[i, start:end] = True
        visual[i, start + len(item.before) : start + len(item.before) + num_visual] = True
    return ChatBatch(ids, labels, attended, visual)

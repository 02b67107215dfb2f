"""Text to token ids and back, with Qwen's special tokens.

Control tokens (turns, vision delimiters) are only ever added as ids, never parsed out of text. The four markup tokens
of phrases and boxes are parsed when `markup=True`, which is for text worded by `prompts`, whose data parts
were cleaned.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OBJECT_REF_START, OBJECT_REF_END = "<|object_ref_start|>", "<|object_ref_end|>"
BOX_START, BOX_END = "<|box_start|>", "<|box_end|>"
MARKUP_TOKENS = (OBJECT_REF_START, OBJECT_REF_END, BOX_START, BOX_END)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_MARKUP = re.compile("(" + "|".join(re.escape(token) for token in MARKUP_TOKENS) + ")")


@dataclass(frozen=True)
class ControlIds:
    """Ids of the tokens that frame a conversation; the names are Qwen's."""

    endoftext: int
    """Padding; also ends text in base checkpoints."""
    im_start: int
    """Opens a turn."""
    im_end: int
    """Closes a turn; generation stops here."""
    vision_start: int
    """Precedes the visual tokens."""
    vision_end: int
    """Follows the visual tokens."""
    image_pad: int
    """Placeholder of one visual token."""


class Tokenizer(ABC):
    """Interface of a tokenizer, as language tasks need it.

    Args:
        vocab_size: Minimum number of rows of an embedding: the largest id in use plus one.
        ids: Id of every token of `MARKUP_TOKENS` and `CONTROL_TOKENS`.
    """

    def __init__(self, vocab_size: int, ids: dict[str, int]) -> None:
        self.vocab_size = vocab_size
        self.markup = {token: ids[token] for token in MARKUP_TOKENS}
        self.control = ControlIds(*(ids[token] for token in CONTROL_TOKENS))
        self._control_ids = frozenset(ids[token] for token in CONTROL_TOKENS)

    def encode(self, text: str, markup: bool = False) -> list[int]:
        """Token ids of `text`.

        Args:
            text: Any string; special tokens spelled out in it are ordinary characters.
            markup: Parse the phrase and box tokens, and only those, as tokens.
        """
        if not markup:
            return self._encode_plain(text)
        ids: list[int] = []
        for piece in _MARKUP.split(text):
            ids += [self.markup[piece]] if piece in self.markup else self._encode_plain(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` with phrase and box tokens spelled out and control tokens left out."""
        return self._decode([index for index in ids if index not in self._control_ids])

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes as tokens 0-255, then the special tokens; needs no files, so it is the default of small decoders."""

    def __init__(self) -> None:
        specials = (*CONTROL_TOKENS, *MARKUP_TOKENS)
        super().__init__(256 + len(specials), {token: 256 + i for i, token in enumerate(specials)})
        self._names = {index: token for token, index in self.markup.items()}

    def _encode_plain(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def _decode(self, ids: list[int]) -> str:
        data = b"".join(bytes([i]) if i < 256 else self._names.get(i, "").encode() for i in ids)
        return data.decode("utf-8", errors="replace")


class PretrainedTokenizer(Tokenizer):
    """A Qwen tokenizer of Hugging Face transformers.

    Args:
        name: Name on the hub, or a local folder.

    Raises:
        ValueError: If a required token is not in its vocabulary.
    """

    def __init__(self, name: str | Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        vocabulary = self._tokenizer.get_vocab()
        missing = [token for token in (*CONTROL_TOKENS, *MARKUP_TOKENS) if token not in vocabulary]
        if missing:
            raise ValueError(f"tokenizer {name} lacks {', '.join(missing)}; use one of Qwen2.5 or Qwen3")
        super().__init__(max(vocabulary.values()) + 1, vocabulary)

    def _encode_plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

"""What language tasks share: tokenizers, prompts and chats, the projector and the decoder of visual tokens."""

from omnistream.language.chat import Chat, ChatBatch, collate_chats, tokenize_chat
from omnistream.language.cross_entropy import chunked_cross_entropy
from omnistream.language.decoder import DecoderConfig, DecoderOutput, LanguageDecoder, pretrained_llm, random_llm
from omnistream.language.projector import Projector
from omnistream.language.prompts import Prompt, make_prompt, parse_regions, strip_markup
from omnistream.language.tokenizer import ByteTokenizer, PretrainedTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer",
    "Chat",
    "ChatBatch",
    "DecoderConfig",
    "DecoderOutput",
    "LanguageDecoder",
    "PretrainedTokenizer",
    "Projector",
    "Prompt",
    "Tokenizer",
    "chunked_cross_entropy",
    "collate_chats",
    "make_prompt",
    "parse_regions",
    "pretrained_llm",
    "random_llm",
    "strip_markup",
    "tokenize_chat",
]

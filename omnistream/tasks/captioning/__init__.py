"""Captioning, reading, locating and naming: the vision-language objective."""

from omnistream.language.decoder import CaptionDecoder, DecoderConfig
from omnistream.language.projector import Projector
from omnistream.language.prompts import Wording, parse_regions, word
from omnistream.language.tokenizer import ByteTokenizer, PretrainedTokenizer
from omnistream.tasks.captioning.metrics import CaptionMetrics, CaptionSample
from omnistream.tasks.captioning.module import CaptioningModule, SummedLoss

__all__ = [
    "ByteTokenizer",
    "CaptionDecoder",
    "CaptionMetrics",
    "CaptionSample",
    "CaptioningModule",
    "DecoderConfig",
    "PretrainedTokenizer",
    "Projector",
    "SummedLoss",
    "Wording",
    "parse_regions",
    "word",
]

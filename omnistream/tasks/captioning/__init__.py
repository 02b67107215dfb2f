"""Captioning, reading, locating and naming: the vision-language objective."""

from omnistream.tasks.captioning.decoder import CaptionDecoder, DecoderConfig
from omnistream.tasks.captioning.metrics import CaptionMetrics, CaptionSample
from omnistream.tasks.captioning.module import CaptioningModule, SummedLoss
from omnistream.tasks.captioning.projector import Projector
from omnistream.tasks.captioning.prompts import Wording, parse_regions, word
from omnistream.tasks.captioning.tokenizer import ByteTokenizer, PretrainedTokenizer

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

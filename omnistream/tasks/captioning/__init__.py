"""Captioning, reading, locating and naming: the vision-language objective."""

from omnistream.language import DecoderConfig
from omnistream.tasks.captioning.metrics import CaptionMetrics, CaptionSample
from omnistream.tasks.captioning.module import CaptioningModule, SummedLoss

__all__ = ["CaptionMetrics", "CaptionSample", "CaptioningModule", "DecoderConfig", "SummedLoss"]

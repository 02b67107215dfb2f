"""Weights from files and the hub: formats, loading and saving."""

from omnistream.backbone.weights.files import read_checkpoint
from omnistream.backbone.weights.load import LoadReport, build, load_pretrained, load_state
from omnistream.backbone.weights.published import PublicWeights, list_public_weights
from omnistream.backbone.weights.source import WeightSource, read_source

__all__ = [
    "LoadReport",
    "PublicWeights",
    "WeightSource",
    "build",
    "list_public_weights",
    "load_pretrained",
    "load_state",
    "read_checkpoint",
    "read_source",
]

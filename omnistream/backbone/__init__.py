"""The streaming ViT: model, rotary positions, frame-causal attention, caches, sessions and weight conversion."""

from omnistream.backbone.compiled import CompiledSession
from omnistream.backbone.frame_step import StepOptions
from omnistream.backbone.heads import StreamHead
from omnistream.backbone.model import BackboneOutput, OmniStream, create_model
from omnistream.backbone.rope import RopeLayout
from omnistream.backbone.static_step import StaticStep
from omnistream.backbone.stream import StreamSession
from omnistream.backbone.variants import VARIANTS, Variant, get_variant, list_models

__all__ = [
    "VARIANTS",
    "BackboneOutput",
    "CompiledSession",
    "OmniStream",
    "RopeLayout",
    "StaticStep",
    "StepOptions",
    "StreamHead",
    "StreamSession",
    "Variant",
    "create_model",
    "get_variant",
    "list_models",
]

"""The streaming ViT: model, rotary positions, frame-causal attention, caches, sessions and weight conversion."""

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.omnistream import OmniStream, create_model
from omnistream.backbone.output import BackboneOutput
from omnistream.backbone.rope import RopeLayout
from omnistream.backbone.sessions.compiled import CompiledSession
from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep
from omnistream.backbone.sessions.stream import StreamSession
from omnistream.backbone.variants import VARIANTS, Variant, get_variant, list_models

__all__ = [
    "VARIANTS",
    "BackboneOutput",
    "CompiledSession",
    "OmniStream",
    "RopeLayout",
    "SessionOptions",
    "StaticStep",
    "StepInput",
    "StreamHead",
    "StreamSession",
    "StreamingViT",
    "Variant",
    "create_model",
    "get_variant",
    "list_models",
]

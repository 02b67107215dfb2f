"""Sessions that remember: options, caches, steps, and heads that stream."""

from omnistream.backbone.sessions.compiled import CompiledSession
from omnistream.backbone.sessions.frame_step import FrameStep, StepInput
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.kv_cache import KVCache
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.session import Session
from omnistream.backbone.sessions.static_step import RingStep, StaticStep
from omnistream.backbone.sessions.stream import StreamSession

__all__ = [
    "CompiledSession",
    "FrameStep",
    "KVCache",
    "RingStep",
    "Session",
    "SessionOptions",
    "StaticStep",
    "StepInput",
    "StreamHead",
    "StreamSession",
]

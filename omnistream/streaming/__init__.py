"""From a video, a camera or a folder of frames to files, frame by frame: what `omnistream stream` is made of.

A source (`sources`) yields frames, `runner` sends them through a streaming session, and writers turn every step into
files (`pictures`, `geometry`, `features`). Nothing is accumulated, so memory does not grow with the length of a stream.
"""

from omnistream.streaming.models import StreamModel, load_model, random_model
from omnistream.streaming.runner import StreamOptions, StreamResult, run_stream
from omnistream.streaming.sources import Frame, Source, open_source
from omnistream.streaming.writer import Step, Writer

__all__ = [
    "Frame",
    "Source",
    "Step",
    "StreamModel",
    "StreamOptions",
    "StreamResult",
    "Writer",
    "load_model",
    "open_source",
    "random_model",
    "run_stream",
]

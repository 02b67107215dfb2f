"""The parts of `omnistream stream`, which runs videos, cameras and image folders through a model, frame by frame.

A source (`sources`) yields frames, `runner` passes them through a streaming session, and writers save the results of
every step (`videos`, `depth`, `poses`, `points`, `features`). Nothing is accumulated, so memory does not grow with the
length of a stream.
"""

from omnistream.streaming.frames import Frame, Source
from omnistream.streaming.runner import StreamOptions, StreamResult, run_stream
from omnistream.streaming.sources import open_source
from omnistream.streaming.writer import Step, Writer

__all__ = [
    "Frame",
    "Source",
    "Step",
    "StreamOptions",
    "StreamResult",
    "Writer",
    "open_source",
    "run_stream",
]

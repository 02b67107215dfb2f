"""From a video, a camera or a folder of images to files, frame by frame: what `omnistream stream` is made of.

A source (`sources`) yields frames, `runner` sends them through a streaming session, and writers turn every step into
files (`videos`, `depth`, `poses`, `points`, `features`). Nothing is accumulated, so memory does not grow with the
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

"""Frames taken from a source in a thread, so that a wait for a silent one can be broken off."""

import queue
import threading
from collections.abc import Generator

from omnistream.streaming.interrupt import StopRequest
from omnistream.streaming.sources import Frame, Source

POLL = 0.1
"""Seconds until a stop request is noticed while the source is silent."""


def frames_until(stop: StopRequest, source: Source) -> Generator[Frame, None, None]:
    """The frames of a source until it ends or a stop is requested, also while it is silent.

    FFmpeg returns to Python only when it has data or gives up, so it waits in a thread of its own. The thread takes a
    frame only when one is asked for: nothing is read ahead. One that still waits at the end is left to the end of the
    process (and `VideoSource.close` leaves what it uses open).

    Raises:
        BaseException: What the source raises.
    """
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
    found: queue.SimpleQueue[Frame | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            frames = iter(source)
            while asked.get():
                found.put(next(frames, None))
        except BaseException as error:  # raised again by who asked
            found.put(error)

    def wait() -> Frame | BaseException | None:
        while True:
            try:
                return found.get(timeout=POLL)
            except queue.Empty:
                if stop.requested:
                    return None

    threading.Thread(target=read, name="frames", daemon=True).start()
    try:
        while not stop.requested:
            asked.put(True)
            frame = wait()
            if isinstance(frame, BaseException):
                raise frame
            if frame is None:
                return
            yield frame
    finally:
        asked.put(False)

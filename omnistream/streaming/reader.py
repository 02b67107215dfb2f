"""Opening and reading sources in threads, so that waiting for one that sends nothing can be interrupted."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from omnistream.streaming.frames import Frame, Source
from omnistream.streaming.interrupt import StopRequest

POLL = 0.1
"""Seconds until a stop request is noticed while the source sends nothing."""

T = TypeVar("T")


def interruptible(work: Callable[[], T]) -> T:
    """Call a function that may wait in FFmpeg, such as `open_source`, so that Ctrl-C takes effect at once.

    Raises:
        BaseException: Whatever the function raises.
    """
    found: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put((work(),))
        except BaseException as error:  # raised again below
            found.put(error)

    threading.Thread(target=run, name="open", daemon=True).start()
    while True:
        try:
            result = found.get(timeout=POLL)
        except queue.Empty:  # lets Python run its signal handlers
            continue
        if isinstance(result, BaseException):
            raise result
        return result[0]


def frames_until(stop: StopRequest, source: Source) -> Generator[Frame, None, None]:
    """The frames of a source until it ends or a stop is requested, even while it sends nothing.

    FFmpeg returns to Python only when it has data or gives up, so it runs in a separate thread. The thread reads a
    frame only when one is requested: nothing is read ahead. If it is still waiting at the end, it lives until the
    process ends (and `VideoSource.close` leaves its file open).

    Raises:
        BaseException: Whatever the source raises.
    """
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
    found: queue.SimpleQueue[Frame | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            frames = iter(source)
            while asked.get():
                found.put(next(frames, None))
        except BaseException as error:  # raised again in the other thread
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

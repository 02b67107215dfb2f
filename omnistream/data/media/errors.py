"""Errors of the media readers, with a message of one line that names the file and the reason."""

from pathlib import Path


class MediaReadError(ValueError):
    """A media file cannot be read.

    Args:
        path: The file.
        reason: What is wrong with it. If it is omitted, `path` is the whole message: data loaders rebuild the exception
            of a worker this way.

    Attributes:
        path: The file as given.
        reason: The reason alone.
    """

    def __init__(self, path: str | Path, reason: str | None = None) -> None:
        self.path, self.reason = str(path), reason or ""
        super().__init__(str(path) if reason is None else f"{path}: {reason}")


class ImageReadError(MediaReadError):
    """An image cannot be read."""


class DepthReadError(MediaReadError):
    """A depth map cannot be read."""


class VideoReadError(MediaReadError):
    """A video, or a requested frame of it, cannot be read."""

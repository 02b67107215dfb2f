"""Errors of the media readers: one line that names the file and the reason."""

from pathlib import Path


class MediaReadError(ValueError):
    """A file cannot be read as what it should be.

    Args:
        path: The file.
        reason: What is wrong with it. Without it, `path` is taken as the whole message; data loaders rebuild a
            worker's exception that way.

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
    """A video, or the wanted frames of it, cannot be read."""

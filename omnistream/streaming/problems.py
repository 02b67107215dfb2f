"""Problems of a stream, which are reported and counted but do not stop it."""

from collections.abc import Callable


class Problems:
    """Broken frames and other problems of one run.

    Args:
        echo: Called with a line for each of the first `shown` problems, and once when the others are only counted.
        shown: Number of lines that are printed and kept, so that memory stays bounded if all frames are broken.
    """

    def __init__(self, echo: Callable[[str], None] = lambda line: None, shown: int = 10) -> None:
        self.echo, self.shown = echo, shown
        self.skipped = 0
        """Number of unusable frames, including packets that should have given one."""
        self.lines: list[str] = []
        """Messages of the first problems."""
        self.truncated: str | None = None
        """Message that the source holds less than it promises; None if it does not."""
        self._num_lines = 0

    def skip(self, text: str) -> None:
        """Count an unusable frame and report why."""
        self.skipped += 1
        self.note(text)

    def note(self, text: str) -> None:
        """Report a problem without counting a frame."""
        self._num_lines += 1
        if self._num_lines <= self.shown:
            self.lines.append(text)
            self.echo(text)
        elif self._num_lines == self.shown + 1:
            self.echo("further problems are only counted; see summary.json")

    def cut_off(self, text: str) -> None:
        """Report that the source ended too early; this is always printed."""
        self.truncated = text
        self.echo(text)

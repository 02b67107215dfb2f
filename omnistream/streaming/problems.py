"""What went wrong along a stream: reported once, counted, never a reason to stop."""

from collections.abc import Callable


class Problems:
    """Broken frames and other remarks of one run.

    Args:
        echo: Gets a line for each of the first `shown` problems, and one line that the rest is only counted.
        shown: Lines that are printed and kept; memory stays bounded in a stream of nothing but broken frames.
    """

    def __init__(self, echo: Callable[[str], None] = lambda line: None, shown: int = 10) -> None:
        self.echo, self.shown = echo, shown
        self.skipped = 0
        """Frames, or packets that should have given one, that could not be used."""
        self.lines: list[str] = []
        """The first problems in words."""
        self.truncated: str | None = None
        """That the source holds less than it promises, in words; None if that is not so."""
        self._num_lines = 0

    def skip(self, text: str) -> None:
        """Count a frame that cannot be used, and say why."""
        self.skipped += 1
        self.note(text)

    def note(self, text: str) -> None:
        """Report something that costs no frame."""
        self._num_lines += 1
        if self._num_lines <= self.shown:
            self.lines.append(text)
            self.echo(text)
        elif self._num_lines == self.shown + 1:
            self.echo("further problems are only counted; see summary.json")

    def cut_off(self, text: str) -> None:
        """Report that the source ended before it should have; printed however many lines there were before."""
        self.truncated = text
        self.echo(text)

"""What went wrong along a stream: told once, counted, never a reason to stop."""

from collections.abc import Callable


class Problems:
    """Broken frames and other remarks of one run.

    Args:
        echo: Gets a line for each of the first `shown` problems, and one line that the rest is only counted.
        shown: Lines that are told and kept; the memory for a stream of nothing but broken frames stays bounded.
    """

    def __init__(self, echo: Callable[[str], None] = lambda line: None, shown: int = 10) -> None:
        self.echo, self.shown = echo, shown
        self.skipped = 0
        """Frames, or packets that should have given one, that could not be used."""
        self.lines: list[str] = []
        """The first problems in words."""
        self._told = 0

    def skip(self, text: str) -> None:
        """Count a frame that cannot be used, and tell."""
        self.skipped += 1
        self.note(text)

    def note(self, text: str) -> None:
        """Tell about something that costs no frame."""
        self._told += 1
        if self._told <= self.shown:
            self.lines.append(text)
            self.echo(text)
        elif self._told == self.shown + 1:
            self.echo("further problems are only counted; see summary.json")

"""Errors that the user of the command line can fix."""

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path


class UsageError(Exception):
    """A command, key, path or value given on the command line or in YAML is wrong."""


class Stopped(BaseException):
    """A signal ended the command, as Ctrl-C does; no `except Exception` holds it up.

    Args:
        number: Of the signal.
        step: Steps of training that were done; None outside training.
        checkpoint: Where they were saved; None if they were not.
        finished: Newest checkpoint of a training that was finished before the signal.
    """

    resume: str | None = None
    """The command that continues from the checkpoint."""

    def __init__(
        self, number: int, step: int | None = None, checkpoint: Path | None = None, finished: Path | None = None
    ) -> None:
        self.number, self.step, self.checkpoint = number, step, checkpoint
        message = "interrupted" if number == signal.SIGINT else "terminated"
        if step is not None:
            saved = f"saved {checkpoint}" if checkpoint else "nothing saved, because the trainer keeps no checkpoints"
            message += f" after step {step}; {saved}"
        elif finished is not None:
            message += f" after training was finished; its newest checkpoint is {finished}"
        super().__init__(message)


def one_line(message: object, limit: int = 600) -> str:
    """The message with all white space collapsed, cut to `limit` characters."""
    text = re.sub(r"\s+", " ", str(message)).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the entry of `known` most like `word`; empty if none is similar."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""

"""How the command line words what the user can fix."""

import difflib
import re
from collections.abc import Iterable


class UsageError(Exception):
    """A command, key, path or value given on the command line or in YAML is wrong."""


def one_line(message: object, limit: int = 600) -> str:
    """The message with all white space collapsed, cut to `limit` characters."""
    text = re.sub(r"\s+", " ", str(message)).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the entry of `known` most like `word`; empty if none is alike."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""

"""Errors of data sets; those of single files are in `data/media/errors.py`."""


class DatasetNotFoundError(FileNotFoundError):
    """No data was found where it was expected.

    Args:
        problem: What is wrong with which folder. Alone it is the whole message; data loaders rebuild a worker's
            exception that way.
        expected: The tree that was expected, in words.
        argument: The argument to change.
    """

    def __init__(self, problem: str, expected: str | None = None, argument: str = "root") -> None:
        super().__init__(
            problem if expected is None else f"{problem}; expected {expected}. Set `{argument}` to such a folder"
        )


class TooManyBrokenFilesError(ValueError):
    """More files are broken than allowed; the message names them."""

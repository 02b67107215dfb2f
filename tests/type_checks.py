"""The run-time check of types and shapes that `--jaxtyping-packages` puts on every function of the library."""

import sys
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_BEARTYPE = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with checks; one that takes `**keywords: Unpack[...]` is left alone on Python 3.10.

    There `Unpack` is that of typing_extensions, which beartype does not know.
    """
    hints = getattr(function, "__annotations__", {}).values()
    if sys.version_info < (3, 11) and any("Unpack" in str(hint) for hint in hints):
        return function
    return _BEARTYPE(function)

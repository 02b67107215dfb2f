"""Paths as users write them, where caches lie on disk, and modes of files."""

import os
import re
from pathlib import Path

CACHE_VARIABLE = "OMNISTREAM_CACHE"
"""Environment variable that names another folder for caches."""

_VARIABLE = re.compile(r"\$(?:\{([^}]+)\}|(\w+))")


def expand_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~`, `~user`, `$VAR` and `${VAR}` replaced, as a shell would.

    A path that exists exactly as written is returned as it is, so a file whose name contains a dollar sign can be
    opened.

    Raises:
        ValueError: If the path names an environment variable that is not set.
    """
    written = os.fspath(path)
    if ("$" not in written and not written.startswith("~")) or os.path.lexists(written):
        return Path(written)
    for braced, plain in _VARIABLE.findall(written):
        if (name := braced or plain) not in os.environ:
            raise ValueError(f"{written}: the environment variable {name} is not set")
    return Path(os.path.expanduser(os.path.expandvars(written)))  # noqa: PTH111 (Path.expanduser fails on ~unknown)


def cache_folder(name: str) -> Path:
    """Folder for caches of one kind, which may be deleted at any time; it need not exist yet.

    It lies in `$OMNISTREAM_CACHE`, else `$XDG_CACHE_HOME/omnistream`, else `~/.cache/omnistream`.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return expand_path(own) / name
    shared = os.environ.get("XDG_CACHE_HOME")
    return (expand_path(shared) if shared else Path.home() / ".cache") / "omnistream" / name


def apply_umask(path: Path) -> None:
    """Give a file the mode of a newly opened one: `tempfile` and safetensors make files that nobody else may read."""
    new = path.with_name(f".{path.name}.mode")
    new.touch()
    path.chmod(new.stat().st_mode)
    new.unlink()

"""The YAML files of the package, found by name.

A packaged configuration is any `*.yaml` under `omnistream/configs`; its name is its path below that folder without the
suffix (`quickstart`, `ablations/without_geometry`). The last part is enough if it is unique.
"""

from pathlib import Path

from omnistream.errors import UsageError, did_you_mean
from omnistream.paths import expand_path

CONFIG_FOLDER = Path(__file__).parent / "configs"


def list_configs(folder: Path = CONFIG_FOLDER) -> dict[str, Path]:
    """Every packaged configuration by name, sorted."""
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str, folder: Path = CONFIG_FOLDER) -> Path:
    """The file that `name` refers to: an existing path first, else a packaged configuration.

    Args:
        name: Path, or name of a packaged configuration with or without its folder and `.yaml`.
        folder: Folder of the packaged configurations.

    Raises:
        UsageError: If nothing or more than one file has that name; the message lists the available names.
    """
    path = expand_path(name)
    if path.is_file():
        return path
    configs = list_configs(folder)
    wanted = name.removesuffix(".yaml")
    found = [wanted] if wanted in configs else [known for known in configs if known.rsplit("/", 1)[-1] == wanted]
    if len(found) == 1:
        return configs[found[0]]
    if found:
        raise UsageError(f"configuration {name!r} is ambiguous; write one of: {', '.join(found)}")
    raise UsageError(
        f"no file and no packaged configuration {name!r}{did_you_mean(wanted, configs)}; "
        f"packaged: {', '.join(configs) or 'none'}"
    )


def summary(path: Path) -> str:
    """Text of the first line of a YAML file if that is a comment, else empty."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""

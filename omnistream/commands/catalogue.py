"""`omnistream configs` and `omnistream models`: what there is to choose from."""

from omnistream.errors import UsageError
from omnistream.packaged_configs import list_configs, summary


def configs(arguments: list[str]) -> None:
    """Print name and first comment line of every packaged configuration."""
    _take_no_arguments("configs", arguments)
    _print_table([(name, summary(path)) for name, path in list_configs().items()])


def models(arguments: list[str]) -> None:
    """Print the backbone variants."""
    _take_no_arguments("models", arguments)
    # The backbone imports torch; `omnistream configs` does without.
    from omnistream.backbone import list_models

    print("\n".join(list_models()))


def _take_no_arguments(command: str, arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"`omnistream {command}` takes no arguments, got {' '.join(arguments)!r}")


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())

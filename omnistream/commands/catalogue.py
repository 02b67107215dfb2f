"""`omnistream configs` and `omnistream models`: the available configurations, variants and weights."""

from collections.abc import Sequence

from omnistream.commands.arguments import CommandParser
from omnistream.packaged_configs import list_configs, summary


def configs(arguments: list[str]) -> None:
    """Print name and first comment line of every packaged configuration."""
    CommandParser("configs", "List the packaged configurations.", "").parse_args(arguments)
    _print_table([(name, summary(path)) for name, path in list_configs().items()])


def models(arguments: list[str]) -> None:
    """Print size and description of every backbone variant, then the public weights."""
    CommandParser("models", "List the variants of the backbone, then the public weights.", "").parse_args(arguments)
    # The backbone imports torch; `omnistream configs` does without.
    import torch

    from omnistream.backbone import OmniStream, get_variant, list_models
    from omnistream.backbone.weights.published import list_public_weights

    rows: list[tuple[str, ...]] = [("variant", "parameters", "width", "layers", "heads", "patch", "")]
    for name in list_models():
        variant = get_variant(name)
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in OmniStream(name).parameters())
        sizes = (variant.embed_dim, variant.num_layers, variant.num_heads, variant.patch_size)
        rows.append((name, f"{count / 1e6:,.1f} M", *map(str, sizes), variant.description))
    _print_table(rows)
    print()
    weights = [(found.hub_id, found.name or "", found.variant, found.description) for found in list_public_weights()]
    _print_table([("public weights", "short name", "variant", ""), *weights])
    print(
        '\nLoad with OmniStream.from_pretrained("...") or `omnistream convert ... FOLDER`; files and folders work too.'
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

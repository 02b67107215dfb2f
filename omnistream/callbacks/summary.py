"""The table of a model's parameters at the start of training."""

from collections.abc import Iterator

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info
from torch import nn


class ParameterSummary(ModelSummary):
    """Prints the parameters of each part: all, and those that are trained.

    Lightning's own summary shows every task as one row and operations that are counted as 0, because nothing has run
    yet.
    """

    def __init__(self) -> None:
        super().__init__(max_depth=1)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table on rank zero."""
        rank_zero_info("\n" + parameter_table(pl_module))


def parameter_table(module: nn.Module) -> str:
    """Rows of name, class, parameters and trained parameters, one for each part and one for the sum."""
    rows = [(name, type(part).__name__, *_counts(part)) for name, part in _parts(module)]
    rows = [("part", "class", "parameters", "trained"), *rows, ("all", type(module).__name__, *_counts(module))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {count:>{widths[2]}}  {trained:>{widths[3]}}"
        for name, kind, count, trained in rows
    )


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children by name; those of a dictionary of modules, such as the tasks, one by one."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleDict):
            yield from ((f"{name}.{key}", part) for key, part in child.items())
        else:
            yield name, child


def _counts(module: nn.Module) -> tuple[str, str]:
    parameters = list(module.parameters())
    return _millions(parameters), _millions([value for value in parameters if value.requires_grad])


def _millions(parameters: list[nn.Parameter]) -> str:
    return f"{sum(value.numel() for value in parameters) / 1e6:,.2f} M"

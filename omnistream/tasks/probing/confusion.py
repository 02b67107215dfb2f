"""Confusion matrices: counting them exactly over processes, and a plot of the classes that are confused most."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from omnistream.distributed import all_reduce

MAX_CLASSES = 20


def confusion_matrix(
    predicted: Int64[Tensor, " N"], target: Int64[Tensor, " N"], num_classes: int
) -> Int64[Tensor, "C C"]:
    """Samples of all processes by true (row) and predicted class (column); every process must call it."""
    cells = torch.bincount(target * num_classes + predicted, minlength=num_classes**2)
    return all_reduce(cells).view(num_classes, num_classes).cpu()


def most_confused(confusion: Int64[Tensor, "C C"], limit: int = MAX_CLASSES) -> list[int]:
    """At most `limit` classes, sorted: both of each pair that is taken for one another, most frequent pairs first.

    Where fewer are ever confused, the most frequent of the other classes follow.
    """
    num_classes = len(confusion)
    pairs = (confusion + confusion.T).triu(1).flatten()
    order = pairs.argsort(descending=True, stable=True)
    chosen: dict[int, None] = {}
    for cell in order[pairs[order] > 0][: limit * limit].tolist():  # more pairs than these name no new class
        new = [label for label in divmod(cell, num_classes) if label not in chosen]
        if len(chosen) + len(new) > limit:
            break
        chosen |= dict.fromkeys(new)
    for label in confusion.sum(1).argsort(descending=True, stable=True).tolist():
        if len(chosen) < limit:
            chosen.setdefault(label)
    return sorted(chosen)


def draw_confusion(
    confusion: Int64[Tensor, "C C"], names: Sequence[str], limit: int = MAX_CLASSES
) -> UInt8[Tensor, "3 H W"]:
    """The confusion matrix of the most confused classes: counts, coloured by their share of the true class.

    Args:
        confusion: Rows are true classes.
        names: Of all classes.
        limit: Most classes shown.
    """
    chosen = most_confused(confusion, limit)
    counts = confusion[chosen][:, chosen]
    shares = counts / confusion[chosen].sum(1, keepdim=True).clamp_min(1)
    figure = Figure(figsize=(2.5 + 0.42 * len(chosen), 2.0 + 0.42 * len(chosen)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    labels = [names[label][:20] for label in chosen]
    axes.set_xticks(range(len(chosen)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(chosen)), labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in counts.nonzero().tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=color, fontsize=7)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

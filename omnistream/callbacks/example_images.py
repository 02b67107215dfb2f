"""Images of what a probe predicts, written while it is tested."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from omnistream.plots.png import encode_png
from omnistream.plots.sheet import Sheet, fit, to_frames

Images = Mapping[str, UInt8[Tensor, "3 _ _"]]
_MARGIN, _TITLE_HEIGHT = 12, 24
"""Pixels around an image, and above it for its title."""


@runtime_checkable
class DrawsBatches(Protocol):
    """A module that draws samples of a test batch."""

    def draw(self, batch: Any) -> Images:
        """Images of the first sample of a batch by title, such as input, truth and prediction; shown in a row."""
        ...


@runtime_checkable
class DrawsResults(Protocol):
    """A module that draws results of a whole test."""

    def draw_results(self) -> Images:
        """Images by title, such as a confusion matrix; called when a test has ended, on every process."""
        ...


class ExampleImages(Callback):
    """Writes what a probe's `draw` and `draw_results` give into the folder `examples` of the test, as PNG files.

    `0000.png` is the first sample of the first test batch, and so on; `omnistream report --html` shows them. Files that
    an earlier test left in the folder are removed. Of several processes the first one draws.

    Args:
        num_batches: Batches to draw from, the first ones.
        size: Longer side of an image in pixels: smaller ones are enlarged by a whole number, larger ones reduced.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(self, num_batches: int = 8, size: int = 320) -> None:
        if num_batches < 1 or size < 1:
            raise ValueError(f"num_batches and size must be at least 1, got {num_batches} and {size}")
        self.num_batches, self.size = num_batches, size
        self.folder: Path | None = None
        """Of the last test."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder and empty it."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "examples"  # a collective: on every process
        if not isinstance(pl_module, DrawsBatches | DrawsResults):
            rank_zero_warn(
                f"ExampleImages has no effect: {type(pl_module).__name__} has no method draw or draw_results"
            )
        if trainer.is_global_zero:
            for path in self.folder.glob("*.png"):
                path.unlink()

    @torch.no_grad()
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first sample of a batch, while it is on the device."""
        if batch is None or batch_idx >= self.num_batches or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, DrawsBatches):
            return
        with trainer.precision_plugin.test_step_context():
            images = pl_module.draw(batch)
        if images:
            name = f"{batch_idx:04d}" if dataloader_idx == 0 else f"{dataloader_idx}-{batch_idx:04d}"
            self._write(name, f"Test batch {batch_idx + 1}", row_of(images, self.size), ", ".join(images))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the results of the whole test."""
        images = pl_module.draw_results() if isinstance(pl_module, DrawsResults) else {}
        if not trainer.is_global_zero or self.folder is None:
            return
        for title, image in images.items():
            name = re.sub(r"[^A-Za-z0-9_.]+", "-", title).strip("-") or "results"
            self._write(f"results-{name}", title, to_frames(image.cpu()), "")
        if self.folder.is_dir():
            rank_zero_info(f"Example images: {self.folder.resolve()}")

    def _write(self, name: str, title: str, image: UInt8[np.ndarray, "H W 3"], caption: str) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.png").write_bytes(encode_png(image, title=title, caption=caption))


def row_of(images: Images, size: int) -> UInt8[np.ndarray, "H W 3"]:
    """Images side by side on white, each under its title.

    Args:
        images: By title.
        size: Longer side of an image; see `omnistream.plots.sheet.fit`.
    """
    # Enlarged colours of classes or depth must stay what they are, so nothing is smoothed when an image is enlarged.
    tiles = {title: fit(to_frames(image.cpu()), size) for title, image in images.items()}
    height = max(tile.shape[0] for tile in tiles.values())
    width = sum(tile.shape[1] + _MARGIN for tile in tiles.values()) + _MARGIN
    sheet, x = Sheet(width, height + _TITLE_HEIGHT + _MARGIN), _MARGIN
    for title, tile in tiles.items():
        sheet.write(title, x, 6)
        sheet.paste(tile, x, _TITLE_HEIGHT)
        x += tile.shape[1] + _MARGIN
    return sheet.pixels()

"""Validation plots of the captioning objective."""

from collections.abc import Sequence

from omnistream.language.prompts import parse_regions
from omnistream.tasks.captioning.metrics import CaptionSample
from omnistream.tasks.plots import CaptionItem, CaptionPlot, Plot


def captioning_plots(samples: Sequence[CaptionSample], limit: int) -> dict[str, Plot]:
    """The first generated answers next to the true ones, with the boxes of both; empty if nothing was generated."""
    items = tuple(
        CaptionItem(
            images=sample.images,
            instruction=sample.instruction,
            truth=sample.answer,
            generated=sample.generated,
            truth_boxes=tuple(region.box for region in parse_regions(sample.answer)),
            generated_boxes=tuple(region.box for region in sample.regions),
        )
        for sample in samples[:limit]
    )
    return {"answers": CaptionPlot(items=items)} if items else {}

"""What loading weights did, for the log and for `omnistream convert`."""

import logging
from dataclasses import dataclass, field

from omnistream.backbone.weights.source import WeightSource

logger = logging.getLogger(__name__)

LAYOUT_NAMES = {
    "ours": "OmniStream (this library)",
    "official": "OmniStream (the authors' release)",
    "meta": "DINOv3 (Meta)",
    "timm": "DINOv3 (timm)",
    "hf": "DINOv3 (Hugging Face)",
}


@dataclass
class LoadReport:
    """What loading did."""

    layout: str
    """`ours`, `official`, `meta`, `timm` or `hf`."""
    variant: str
    """Size of the model."""
    initialized: list[str]
    """Our parameters that the source does not have; they keep their initial values."""
    filled: list[str] = field(default_factory=list)
    """Parameters set from something else than a tensor of the same meaning, and how."""
    dropped: list[str] = field(default_factory=list)
    """What the source holds and the model does not, and why."""
    statistics: str = "as in the weights"
    """Where mean and standard deviation of the input come from."""
    hints: list[str] = field(default_factory=list)
    """What to know when using the model."""

    def __str__(self) -> str:
        parts = [f"{self.variant} from {LAYOUT_NAMES[self.layout]}"]
        for title, items in (
            ("filled in", self.filled),
            ("left as initialised", self.initialized),
            ("not taken over", self.dropped),
        ):
            if items:
                parts.append(f"{title}: {', '.join(items)}")
        parts.append(f"mean and std: {self.statistics}")
        return "; ".join([*parts, *self.hints])


def log(report: LoadReport, source: WeightSource) -> None:
    """One line; a warning if anything was filled in, left out or needs to be known."""
    exact = not (report.filled or report.dropped or report.initialized or report.hints)
    logger.log(logging.INFO if exact else logging.WARNING, "%s: loaded %s", source.name, report)

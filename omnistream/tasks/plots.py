"""Data that a task provides for plots, and the method that provides it.

A plot here is data, not pixels: tensors of one sample, on any device. `plots.draw` turns each
kind into a uint8 image. Letters: G global and L local crops, T frames, H W pixels, S s crop sizes, h w patches, D
width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from omnistream.boxes import Box


@dataclass(frozen=True, kw_only=True)
class ViewsPlot:
    """Crops of one image (T=1) or clip, as student and teacher see them."""

    global_crops: Shaped[Tensor, "G T 3 S S"]
    """uint8, or floating point in [0, 1]."""
    local_crops: Shaped[Tensor, "L T 3 s s"] | None = None
    """uint8, or floating point in [0, 1]; None where the recipe has none."""
    masks: Bool[Tensor, "G T h w"] | None = None
    """True where the student sees the mask token."""


@dataclass(frozen=True, kw_only=True)
class FeaturesPlot:
    """Patch features of one clip; one PCA over all its frames colours them."""

    images: Shaped[Tensor, "T 3 H W"]
    """uint8, or floating point in [0, 1]."""
    features: Float[Tensor, "T h w D"]


@dataclass(frozen=True, kw_only=True)
class DepthPlot:
    """Predicted depth of one clip beside the truth, in the same unit: a task that predicts up to scale aligns first."""

    images: Shaped[Tensor, "T 3 H W"]
    """uint8, or floating point in [0, 1]."""
    truth: Float[Tensor, "T H W"]
    """z-depth."""
    valid: Bool[Tensor, "T H W"]
    """Where `truth` is known."""
    prediction: Float[Tensor, "T H W"]
    confidence: Float[Tensor, "T H W"] | None = None
    unit: str = ""
    """Unit after the numbers, for example "m"."""
    note: str = ""
    """Written under the title, for example how the prediction was aligned."""
    title: str = ""
    """Instead of the usual title, which says the error of these frames."""
    labels: tuple[str, ...] = ()
    """Written over the frames, one each, such as their number in the video."""


@dataclass(frozen=True, kw_only=True)
class CameraPlot:
    """Predicted and true camera path of one clip, camera-to-world, OpenCV axes; they may differ by any Sim(3)."""

    truth: Float[Tensor, "T 4 4"]
    prediction: Float[Tensor, "T 4 4"]
    unit: str = ""
    """Unit of the true translation, for example "m"."""
    title: str = ""
    """Instead of the usual title."""
    aligned: bool = False
    """The prediction is in the frame and scale of the truth already, and drawn where it is."""


@dataclass(frozen=True, kw_only=True)
class CaptionItem:
    """One image or clip with instruction, true answer and generated answer."""

    images: Shaped[Tensor, "T 3 H W"]
    """uint8, or floating point in [0, 1]."""
    truth: str
    generated: str
    instruction: str = ""
    truth_boxes: tuple[Box, ...] = ()
    """In [0, 1], relative to the image."""
    generated_boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaptionPlot:
    """Several captioned samples, one below the other."""

    items: tuple[CaptionItem, ...]

    def __post_init__(self) -> None:
        """Check that there is an item."""
        if not self.items:
            raise ValueError("CaptionPlot: expected at least one item, got none")


Plot: TypeAlias = ViewsPlot | FeaturesPlot | DepthPlot | CameraPlot | CaptionPlot


@runtime_checkable
class HasPlots(Protocol):
    """A task with plots.

    `plots` runs at validation, without gradient and in eval mode, on **every** process (its forward pass may contain
    collectives); only rank zero draws what it returns.
    """

    def plots(self, backbone: nn.Module, batch: Any, limit: int) -> Mapping[str, Plot]:
        """Plots of the first `limit` samples of a validation batch.

        Args:
            backbone: As in `Objective.compute`.
            batch: The task's own validation batch, on the device.
            limit: Samples to show at most.

        Returns:
            Plots by name; a name such as `image/0` becomes `<task>/image/0` in the log and in the file name.
        """
        ...

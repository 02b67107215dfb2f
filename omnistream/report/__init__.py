"""Pictures, curves, the progress bar and the page of a run.

A task describes what to draw (`tasks.pictures`); `draw` makes pixels of it; `callbacks` ask the tasks at validation and
write the page at the end.
"""

from omnistream.report.callbacks import FinalReport, ValidationPictures
from omnistream.report.curves import Series, draw_curves, read_scalars
from omnistream.report.draw import draw
from omnistream.report.figures import FigureRow, Measures
from omnistream.report.page import ReportPage
from omnistream.report.predictions import PredictionWriter
from omnistream.report.progress import TaskProgressBar, Throughput
from omnistream.tasks.pictures import (
    CameraPicture,
    CaptionItem,
    CaptionPicture,
    DepthPicture,
    Draws,
    FeaturesPicture,
    Picture,
    ViewsPicture,
)

__all__ = [
    "CameraPicture",
    "CaptionItem",
    "CaptionPicture",
    "DepthPicture",
    "Draws",
    "FeaturesPicture",
    "FigureRow",
    "FinalReport",
    "Measures",
    "Picture",
    "PredictionWriter",
    "ReportPage",
    "Series",
    "TaskProgressBar",
    "Throughput",
    "ValidationPictures",
    "ViewsPicture",
    "draw",
    "draw_curves",
    "read_scalars",
]

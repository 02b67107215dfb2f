"""The page of a run."""

from omnistream.report.figures import FigureRow, Measures
from omnistream.report.page import ReportPage

__all__ = ["FigureRow", "Measures", "ReportPage"]

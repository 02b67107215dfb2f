"""Lightning callbacks: progress, throughput, plots at validation, predictions, and the page at the end."""

from omnistream.callbacks.predictions import PredictionWriter
from omnistream.callbacks.progress import TaskProgressBar, Throughput
from omnistream.callbacks.run_plots import FinalReport, ValidationPlots

__all__ = ["FinalReport", "PredictionWriter", "TaskProgressBar", "Throughput", "ValidationPlots"]

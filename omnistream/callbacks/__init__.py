"""Lightning callbacks: progress, parameters, throughput, plots at validation, predictions, and the page at the end."""

from omnistream.callbacks.predictions import PredictionWriter
from omnistream.callbacks.progress import Throughput
from omnistream.callbacks.progress_bar import TaskProgressBar
from omnistream.callbacks.run_plots import FinalReport, ValidationPlots
from omnistream.callbacks.summary import ParameterSummary

__all__ = ["FinalReport", "ParameterSummary", "PredictionWriter", "TaskProgressBar", "Throughput", "ValidationPlots"]

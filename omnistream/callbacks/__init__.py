"""Lightning callbacks: progress, parameters, plots, example images, predictions, evaluations and the final report."""

from omnistream.callbacks.example_images import ExampleImages
from omnistream.callbacks.final_report import FinalReport
from omnistream.callbacks.held_out import Comparison, HeldOutEvaluation
from omnistream.callbacks.predictions import PredictionWriter
from omnistream.callbacks.progress import Throughput
from omnistream.callbacks.progress_bar import TaskProgressBar
from omnistream.callbacks.reconstruction_plots import ReconstructionPlots
from omnistream.callbacks.run_folder import RunFolder
from omnistream.callbacks.summary import ParameterSummary
from omnistream.callbacks.validation_plots import ValidationPlots
from omnistream.evaluation.results import ResultsWriter

__all__ = [
    "Comparison",
    "ExampleImages",
    "FinalReport",
    "HeldOutEvaluation",
    "ParameterSummary",
    "PredictionWriter",
    "ReconstructionPlots",
    "ResultsWriter",
    "RunFolder",
    "TaskProgressBar",
    "Throughput",
    "ValidationPlots",
]

"""Evaluation of streamed geometry, frame by frame: depth of videos and camera poses."""

from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome, Status

__all__ = ["ReconstructedVideo", "SequenceOutcome", "Status"]

"""Evaluations of frozen features."""

from omnistream.tasks.probing.action import AttentiveActionProbe, ClipClassification, LinearActionProbe, ProbeConfig
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.linear import RidgeClassifier
from omnistream.tasks.probing.vos import VideoObjectSegmentation

__all__ = [
    "AttentiveActionProbe",
    "AttentiveProbe",
    "ClipClassification",
    "LinearActionProbe",
    "ProbeConfig",
    "RidgeClassifier",
    "VideoObjectSegmentation",
]

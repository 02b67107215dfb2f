"""Evaluations of frozen features."""

from omnistream.tasks.probing.action import AttentiveActionProbe, ClipClassification, LinearActionProbe, ProbeConfig
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.depth import DepthConfig, LinearDepthProbe
from omnistream.tasks.probing.linear import RidgeClassifier

__all__ = [
    "AttentiveActionProbe",
    "AttentiveProbe",
    "ClipClassification",
    "DepthConfig",
    "LinearActionProbe",
    "LinearDepthProbe",
    "ProbeConfig",
    "RidgeClassifier",
]

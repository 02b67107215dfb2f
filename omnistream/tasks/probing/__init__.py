"""Evaluations of frozen features."""

from omnistream.tasks.probing.action import AttentiveActionProbe, ClipClassification, LinearActionProbe, ProbeConfig
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.classification import ImageClassification, LinearClassification
from omnistream.tasks.probing.knn import KNNClassification
from omnistream.tasks.probing.linear import RidgeClassifier

__all__ = [
    "AttentiveActionProbe",
    "AttentiveProbe",
    "ClipClassification",
    "ImageClassification",
    "KNNClassification",
    "LinearActionProbe",
    "LinearClassification",
    "ProbeConfig",
    "RidgeClassifier",
]

"""Evaluations of frozen features."""

from omnistream.tasks.probing.action import AttentiveActionProbe, ClipClassification, LinearActionProbe, ProbeConfig
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.classification import ImageClassification, LinearClassification
from omnistream.tasks.probing.depth import DepthConfig, LinearDepthProbe
from omnistream.tasks.probing.knn import KNNClassification
from omnistream.tasks.probing.linear import RidgeClassifier
from omnistream.tasks.probing.segmentation import LinearSegmentationHead, SegmentationProbe
from omnistream.tasks.probing.vos import VideoObjectSegmentation

__all__ = [
    "AttentiveActionProbe",
    "AttentiveProbe",
    "ClipClassification",
    "DepthConfig",
    "ImageClassification",
    "KNNClassification",
    "LinearActionProbe",
    "LinearClassification",
    "LinearDepthProbe",
    "LinearSegmentationHead",
    "ProbeConfig",
    "RidgeClassifier",
    "SegmentationProbe",
    "VideoObjectSegmentation",
]

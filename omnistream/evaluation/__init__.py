"""What all evaluations share: frozen probes, adapters for other models, and results files."""

from omnistream.evaluation.cache import CachedFeatures, FeatureBatch
from omnistream.evaluation.closed_form import ClosedFormHead, ClosedFormProbe
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.evaluation.label_propagation import LabelPropagation, PropagationConfig, propagate_labels
from omnistream.evaluation.models import Backbone, FrameGeometry, StreamingGeometry
from omnistream.evaluation.results import EvaluationResult, MetricValue, ResultsWriter
from omnistream.evaluation.saved_predictions import SavedPredictions
from omnistream.evaluation.timm_backbone import TimmBackbone
from omnistream.evaluation.video_features import encode_video

__all__ = [
    "Backbone",
    "CachedFeatures",
    "ClosedFormHead",
    "ClosedFormProbe",
    "EvaluationResult",
    "FeatureBatch",
    "FrameGeometry",
    "FrozenProbe",
    "LabelPropagation",
    "MetricValue",
    "PropagationConfig",
    "ResultsWriter",
    "SavedPredictions",
    "Setting",
    "StreamingGeometry",
    "TimmBackbone",
    "encode_video",
    "propagate_labels",
]

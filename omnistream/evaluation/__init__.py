"""What all evaluations share: frozen probes, adapters for other models, and results files."""

from omnistream.evaluation.cache import CachedFeatures, FeatureBatch, FeatureSet
from omnistream.evaluation.closed_form import ClosedFormHead, ClosedFormProbe
from omnistream.evaluation.feature_store import FeatureStore, StoredFeatures
from omnistream.evaluation.fingerprint import fingerprint, model_fingerprint
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.evaluation.geometry_baselines import PoseBaseline, baseline_poses
from omnistream.evaluation.label_propagation import LabelPropagation, PropagationConfig, propagate_labels
from omnistream.evaluation.models import Backbone, FrameGeometry, StreamingGeometry
from omnistream.evaluation.results import EvaluationResult, MetricValue, ResultsWriter
from omnistream.evaluation.saved_predictions import SavedPredictions, SavedVideos
from omnistream.evaluation.timm_backbone import TimmBackbone
from omnistream.evaluation.video_features import encode_video
from omnistream.evaluation.vjepa2 import VJEPA2Backbone

__all__ = [
    "Backbone",
    "CachedFeatures",
    "ClosedFormHead",
    "ClosedFormProbe",
    "EvaluationResult",
    "FeatureBatch",
    "FeatureSet",
    "FeatureStore",
    "FrameGeometry",
    "FrozenProbe",
    "LabelPropagation",
    "MetricValue",
    "PoseBaseline",
    "PropagationConfig",
    "ResultsWriter",
    "SavedPredictions",
    "SavedVideos",
    "Setting",
    "StoredFeatures",
    "StreamingGeometry",
    "TimmBackbone",
    "VJEPA2Backbone",
    "baseline_poses",
    "encode_video",
    "fingerprint",
    "model_fingerprint",
    "propagate_labels",
]

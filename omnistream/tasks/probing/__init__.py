"""Evaluation of a frozen backbone by probes."""

from omnistream.tasks.probing.action import ActionProbeModule, ProbeConfig, ProbeResult, fit_action_probe
from omnistream.tasks.probing.attentive import AttentiveProbe
from omnistream.tasks.probing.features import CachedFeatures, cache_features, clip_tokens, freeze

__all__ = [
    "ActionProbeModule",
    "AttentiveProbe",
    "CachedFeatures",
    "ProbeConfig",
    "ProbeResult",
    "cache_features",
    "clip_tokens",
    "fit_action_probe",
    "freeze",
]

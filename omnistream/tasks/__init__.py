"""Objectives and evaluations; one LightningModule each."""

from omnistream.tasks.multitask import MultiTaskModule
from omnistream.tasks.nonfinite import NonFiniteConfig, NonFiniteLossError
from omnistream.tasks.objective import Objective, ObjectiveLoss
from omnistream.tasks.optimization import OptimizerConfig

__all__ = ["MultiTaskModule", "NonFiniteConfig", "NonFiniteLossError", "Objective", "ObjectiveLoss", "OptimizerConfig"]

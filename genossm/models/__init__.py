"""Models: configuration, presets, directories on disk, and importers of other authors' checkpoints."""

from __future__ import annotations

from genossm.models.converting import convert
from genossm.models.exporting import export_checkpoint
from genossm.models.loading import load
from genossm.models.presets import PRESETS, preset
from genossm.models.sequence_model import ModelOutput, SequenceModel
from genossm.models.shipped import ShippedModel, shipped_model, shipped_models
from genossm.nn import StackConfig, StackState

__all__ = [
    "PRESETS",
    "ModelOutput",
    "SequenceModel",
    "ShippedModel",
    "StackConfig",
    "StackState",
    "convert",
    "export_checkpoint",
    "load",
    "preset",
    "shipped_model",
    "shipped_models",
]

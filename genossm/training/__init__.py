"""Training runs: configuration, Lightning module, optimizer groups, checkpoints, logs. Needs the extra `train`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genossm.training.config import TrainConfig as TrainConfig
    from genossm.training.config import load_train_config as load_train_config
    from genossm.training.module import LanguageModelTraining as LanguageModelTraining
    from genossm.training.optim import parameter_groups as parameter_groups
    from genossm.training.run import TrainResult as TrainResult
    from genossm.training.run import train as train

_HOME = {
    "LanguageModelTraining": "module",
    "TrainConfig": "config",
    "TrainResult": "run",
    "load_train_config": "config",
    "parameter_groups": "optim",
    "train": "run",
}
__all__ = [
    "LanguageModelTraining",
    "TrainConfig",
    "TrainResult",
    "load_train_config",
    "parameter_groups",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"genossm.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'genossm.training' has no attribute {name!r}")

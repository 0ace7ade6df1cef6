"""From a source directory to a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from genossm.core.errors import ConfigError, ModelFormatError
from genossm.models.importers import caduceus, mamba_ssm, transformers
from genossm.models.importers.checkpoint import Checkpoint, source_tokenizer
from genossm.models.sequence_model import SequenceModel
from genossm.models.weights import fill

_MODULES: dict[str, ModuleType] = {"mamba-ssm": mamba_ssm, "transformers": transformers, "caduceus": caduceus}
LAYOUTS = tuple(_MODULES)


def import_checkpoint(checkpoint: Checkpoint, *, layout: str = "auto") -> tuple[SequenceModel, str]:
    """The model that a checkpoint holds, in the file's dtypes, and the layout that it was read as.

    layout: one of `LAYOUTS`, or "auto" to tell by config.json.
    Raises: ModelFormatError or ConfigError that says what does not fit.
    """
    if layout == "auto":
        layout = _detect(checkpoint.config, checkpoint.directory)
    elif layout not in _MODULES:
        raise ConfigError(f"There is no layout {layout!r}; choose auto, {', '.join(LAYOUTS)}.")
    module = _MODULES[layout]
    config = module.stack_config(checkpoint.config)
    model = SequenceModel(config, source_tokenizer(checkpoint.directory))
    fill(model, module.rename(checkpoint.tensors, config), model.tensors(), source=str(checkpoint.directory))
    return model, layout


def _detect(config: Mapping[str, Any], directory: Path) -> str:
    found = [name for name, module in _MODULES.items() if module.recognises(config)]
    if len(found) == 1:
        return found[0]
    told = f"model_type {config['model_type']!r}" if "model_type" in config else "no model_type and no ssm_cfg"
    raise ModelFormatError(
        f"{directory}/config.json has {told}; this version reads {', '.join(LAYOUTS)} checkpoints of Mamba-1. "
        "If it is one of these all the same, name it with --from."
    )

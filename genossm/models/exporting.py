"""`export_checkpoint`: a model of ours in the layout of the authors whose code can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from genossm.core.atomic import atomic_directory
from genossm.models.importers import caduceus
from genossm.models.sequence_model import SequenceModel


def export_checkpoint(model: SequenceModel, directory: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a bidirectional model as Caduceus' own code saves and loads it: config.json and model.safetensors.

    Importing the result gives the same model, bit for bit; tied tensors are written once.
    Raises: ConfigError for a causal model, OutputExistsError if `directory` exists, without `force`.
    """
    from safetensors.torch import save_file

    config, tensors = caduceus.export(model.tensors(), model.config)
    with atomic_directory(directory, force=force, marker="config.json") as temporary:
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        held = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary / "model.safetensors", metadata={"format": "pt"})
    return Path(directory)

"""`convert`: another author's checkpoint becomes a model directory."""

from __future__ import annotations

import os
from pathlib import Path

from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import ModelFormatError
from genossm.core.provenance import Provenance
from genossm.models.directory import is_own
from genossm.models.importers import import_checkpoint, read_checkpoint
from genossm.models.loading import find_directory
from genossm.models.sequence_model import SequenceModel


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    layout: str = "auto",
    allow_pickle: bool = False,
    force: bool = False,
) -> SequenceModel:
    """Import the checkpoint `source` (a directory or a Hub id), write the model directory `target`, return the model.

    layout: "mamba-ssm", "transformers", or "auto" to tell by config.json.
    allow_pickle: read .bin and .pt files, tensors only, where there are no safetensors.
    Raises: ModelFormatError or ConfigError that says what does not fit; OutputExistsError without `force`.
    """
    refuse_overwrite(Path(target), force=force)
    directory = find_directory(source, files=["*.json", "*.safetensors", *(["*.bin", "*.pt"] if allow_pickle else [])])
    if (directory / "config.json").is_file() and is_own(directory):
        raise ModelFormatError(f"{directory} is a model directory of genossm already. Load it with genossm.load.")
    checkpoint = read_checkpoint(directory, allow_pickle=allow_pickle)
    model, layout = import_checkpoint(checkpoint, layout=layout)
    record = {
        "name": Path(target).name,
        "source": Path(source).name if Path(source).is_dir() else str(source),
        "layout": layout,
        "source_config": checkpoint.config,
        "source_sha256": checkpoint.files,
    }
    model.save_pretrained(target, provenance=Provenance(extra=record), force=force)
    return model.eval()

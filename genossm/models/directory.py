"""A model directory: config.json, model.safetensors, tokenizer.json, provenance.json, README.md."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genossm.core.atomic import atomic_directory
from genossm.core.errors import ConfigError, ModelFormatError, TokenizerError
from genossm.core.provenance import Provenance
from genossm.core.strict import from_mapping, to_mapping
from genossm.models.card import model_card
from genossm.models.weights import fill, read_json, read_safetensors
from genossm.nn import StackConfig
from genossm.sequence import NucleotideTokenizer, tokenizer_from_dict

if TYPE_CHECKING:
    from genossm.models.sequence_model import SequenceModel

FORMAT = "genossm-model"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, PROVENANCE, CARD = (
    "config.json", "model.safetensors", "tokenizer.json", "provenance.json", "README.md",
)  # fmt: skip
REQUIRED = (CONFIG, WEIGHTS, TOKENIZER, PROVENANCE)


def write_directory(
    model: SequenceModel,
    directory: Path,
    *,
    provenance: Provenance | None,
    figures: Mapping[str, str | float],
    card: str | None = None,
    force: bool,
) -> Path:
    """See `SequenceModel.save_pretrained`."""
    from safetensors.torch import save_file

    provenance = dataclasses.replace(provenance or Provenance(), model_digest=model.digest())
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, "stack": to_mapping(model.config)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.tensors().items()}
    with atomic_directory(directory, force=force, marker="config.json") as temporary:
        _write_json(temporary / CONFIG, config)
        _write_json(temporary / TOKENIZER, model.tokenizer.to_dict())
        _write_json(temporary / PROVENANCE, provenance.as_dict())
        (temporary / CARD).write_text(card or model_card(model, provenance, figures))
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        # safetensors lets the owner alone read its files.
        shutil.copymode(temporary / CONFIG, temporary / WEIGHTS)
    return directory


def is_own(directory: Path) -> bool:
    """Whether the config.json of `directory` says that it is in this format."""
    return read_json(directory / CONFIG).get("format") == FORMAT


def read_directory(directory: Path) -> SequenceModel:
    """Build the model that `write_directory` wrote, on the CPU and in the file's dtypes.

    Raises: ModelFormatError if files are missing, or contradict one another.
    """
    from genossm.models.sequence_model import SequenceModel

    absent = [name for name in REQUIRED if not (directory / name).is_file()]
    if absent:
        raise ModelFormatError(
            f"{directory} lacks {', '.join(absent)}: it is incomplete. Copy or download the whole directory again."
        )
    config = _read_config(directory / CONFIG)
    tokenizer = _read_tokenizer(directory / TOKENIZER)
    try:
        model = SequenceModel(config, tokenizer)
    except ConfigError as error:
        raise ModelFormatError(f"{directory}: {error}") from error
    fill(model, read_safetensors(directory / WEIGHTS), model.tensors(), source=str(directory / WEIGHTS))
    _check_digest(model, directory)
    return model


def _read_config(path: Path) -> StackConfig:
    content = read_json(path)
    version = content.get("format_version")
    if content.get("format") != FORMAT or not isinstance(version, int):
        raise ModelFormatError(f"{path} is no configuration of genossm. Import other authors' with `genossm convert`.")
    if version > FORMAT_VERSION:
        raise ModelFormatError(
            f"{path} has format version {version}, this genossm reads up to {FORMAT_VERSION}. Install a newer genossm."
        )
    unknown = sorted(set(content) - {"format", "format_version", "stack"})
    if unknown:
        raise ModelFormatError(
            f"{path} has unknown keys {', '.join(unknown)}. Remove them, or install a newer genossm."
        )
    try:
        return from_mapping(StackConfig, content.get("stack", {}), where=f"{path}: stack")
    except ConfigError as error:
        raise ModelFormatError(str(error)) from error


def _read_tokenizer(path: Path) -> NucleotideTokenizer:
    try:
        tokenizer = tokenizer_from_dict(read_json(path))
    except TokenizerError as error:
        raise ModelFormatError(f"{path}: {error}") from error
    if not isinstance(tokenizer, NucleotideTokenizer):
        raise ModelFormatError(
            f"{path}: got a tokenizer of type {tokenizer.TYPE!r}, wanted 'nucleotide': models of this version read one "
            "base a token."
        )
    return tokenizer


def _check_digest(model: SequenceModel, directory: Path) -> None:
    written = read_json(directory / PROVENANCE).get("model_digest")
    found = model.digest()
    if written != found:
        raise ModelFormatError(
            f"{directory} contradicts itself: {PROVENANCE} says digest {str(written)[:12]}; configuration, tokenizer "
            f"and weights have {found[:12]}. A file was changed or mixed up: take the directory from its source again."
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with open(path, "w") as handle:
        json.dump(content, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())


def cast_weights(model: SequenceModel, dtype: torch.dtype) -> None:
    """Change the weights' dtype; step-size biases, A_log and D stay at least float32, since the scan reads them so."""
    for parameter in model.parameters():
        keep = getattr(parameter, "_keep_float32", False)
        parameter.data = parameter.data.to(torch.promote_types(dtype, torch.float32) if keep else dtype)

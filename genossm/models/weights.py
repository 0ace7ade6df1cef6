"""Tensors from files, and into a model, with every disagreement named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genossm.core.errors import ModelFormatError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file whose top level is an object. Raises: ModelFormatError if it is missing or is no such file."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelFormatError(f"{path} is missing. Copy or download the model directory again.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFormatError(f"{path} is no readable JSON: {error}. Copy or download the model again.") from error
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path} holds {type(content).__name__} at its top level; wanted an object.")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file. Raises: ModelFormatError if it is missing, cut short or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelFormatError(f"{path} is missing. Copy or download the model directory again.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path} is damaged or cut short: {error}. Copy or download it again.") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `tensors` into the weights `expected`, which belong to `module`, keeping the file's dtypes.

    Raises: ModelFormatError listing missing, unknown and misshapen tensors, all of them.
    """
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the configuration wants {tuple(want.shape)}"
        for name, want in expected.items()
        if name in tensors and tensors[name].shape != want.shape
    ]
    problems += [
        f"{name} has dtype {tensor.dtype}" for name, tensor in tensors.items() if not tensor.is_floating_point()
    ]
    if problems:
        raise ModelFormatError(
            f"{source}: {len(problems)} tensors do not fit the configuration: {'; '.join(sorted(problems))}. "
            "Check that config.json and the weights belong together."
        )
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].data = tensor.contiguous()

"""Pretrained models that come with the package: model directories in `pretrained/`, found by their names.

Their weights are stored in bfloat16 (decays in float16, step-size biases and skips in float32) and loaded as float32
unless another dtype is asked for. `provenance.json` says what they were trained on; the README.md is their card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genossm.core.errors import InputFileError, ModelFormatError
from genossm.core.strict import nearest
from genossm.models.directory import CARD, CONFIG, PROVENANCE

FOLDER = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class ShippedModel:
    """objective: "causal" or "masked".   parameters: weights.   size: bytes of the directory.   summary: a line."""

    name: str
    directory: Path
    objective: str
    parameters: int
    size: int
    summary: str
    digest: str

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return (self.directory / CARD).read_text(encoding="utf-8")


def shipped_names() -> tuple[str, ...]:
    """Names of the models that this installation has, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{CONFIG}")))


def shipped_model(name: str) -> ShippedModel:
    """What there is to know of a shipped model without loading it.

    Raises: InputFileError for an unknown name; ModelFormatError if its files are damaged.
    """
    if name not in shipped_names():
        raise InputFileError(f"There is no shipped model {name!r}. {_hint(name)}")
    directory = FOLDER / name
    try:
        stack = json.loads((directory / CONFIG).read_text())["stack"]
        provenance: dict[str, Any] = json.loads((directory / PROVENANCE).read_text())
        extra = provenance["extra"]
        size = sum(file.stat().st_size for file in directory.iterdir())
        return ShippedModel(
            name,
            directory,
            stack.get("objective", "causal"),
            extra["parameters"],
            size,
            extra["summary"],
            provenance["model_digest"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelFormatError(f"The shipped model {name} is damaged ({error!r}). Install genossm again.") from error


def shipped_models() -> tuple[ShippedModel, ...]:
    """All of them, by name."""
    return tuple(map(shipped_model, shipped_names()))


def shipped_directory(text: object) -> Path | None:
    """Where the shipped model called `text` is, None if there is none of that name.

    Raises: InputFileError if a directory of that name stands in the current folder: one of the two is meant.
    """
    if not isinstance(text, str) or text not in shipped_names():
        return None
    if Path(text).is_dir():
        raise InputFileError(
            f"{text} is a model that comes with genossm and also a directory here. Write ./{text} for the directory, "
            "or call from another folder for the shipped model."
        )
    return FOLDER / text


def shipped_hint(text: object) -> str:
    """A sentence that names the shipped model that somebody may have meant; empty if none is near."""
    close = nearest(text, shipped_names()) if isinstance(text, str) else None
    return f" Did you mean the shipped model {close!r}?" if close else ""


def _hint(name: str) -> str:
    close = nearest(name, shipped_names())
    if close:
        return f"Did you mean {close!r}?"
    listed = ", ".join(shipped_names())
    return f"There are {listed}." if listed else "This installation has none: install a released wheel."

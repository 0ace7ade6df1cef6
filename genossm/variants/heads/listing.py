"""What `genossm head list` prints."""

from __future__ import annotations

from pathlib import Path

from genossm.models.loading import find_directory
from genossm.variants.heads.head import FOLDER, VariantHead, heads_in, load_head


def list_heads(model: str, beside: Path | None = None) -> list[str]:
    """Tab-separated lines: a head, then one a head of the model's directory and of the folder `beside`."""
    folders = [find_directory(model, files=["*.json", "*.safetensors"]) / FOLDER, *([beside] if beside else [])]
    heads = [load_head(path) for folder in folders for path in heads_in(folder)]
    return ["name\tkind\tmetric\tvalue\tlow\thigh\talleles\tcovariates\ttrained on", *map(_line, heads)]


def _line(head: VariantHead) -> str:
    figures = head.figures
    low, high = figures["interval"]
    covariates = ",".join(one.name for one in head.covariates) or "-"
    values = (f"{figures['value']:.3f}", f"{low:.3f}", f"{high:.3f}", f"{figures['alleles']}", covariates, head.label)
    return "\t".join((head.name, head.linear.kind, figures["metric"], *values))

"""Scores of variants: alleles in, ratios, distances or reasons out; VCF and BCF files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genossm.variants.files import score_file
from genossm.variants.locate import Allele, EmbeddingDistances, ScoredAllele
from genossm.variants.options import ScoringOptions
from genossm.variants.policy import FilePolicy
from genossm.variants.status import STATUS_MEANINGS, Status
from genossm.variants.summary import Summary

if TYPE_CHECKING:
    from genossm.variants.extras import Extras as Extras
    from genossm.variants.opening import load_extras as load_extras
    from genossm.variants.saturating import Saturation as Saturation
    from genossm.variants.saturating import saturation as saturation
    from genossm.variants.scorer import score as score

__all__ = [
    "STATUS_MEANINGS",
    "Allele",
    "EmbeddingDistances",
    "Extras",
    "FilePolicy",
    "Saturation",
    "ScoredAllele",
    "ScoringOptions",
    "Status",
    "Summary",
    "load_extras",
    "saturation",
    "score",
    "score_file",
]


# Torch takes seconds to load, which a mistyped path need not wait for.
_LAZY = {
    "Extras": "extras",
    "Saturation": "saturating",
    "load_extras": "opening",
    "saturation": "saturating",
    "score": "scorer",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"genossm.variants.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Scores of variants: alleles in, log-likelihood ratios or reasons out; VCF and BCF files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genossm.variants.files import FilePolicy, Summary, score_file
from genossm.variants.locate import Allele, ScoredAllele, ScoringOptions
from genossm.variants.status import STATUS_MEANINGS, Status

if TYPE_CHECKING:
    from genossm.variants.scorer import score as score

__all__ = [
    "STATUS_MEANINGS",
    "Allele",
    "FilePolicy",
    "ScoredAllele",
    "ScoringOptions",
    "Status",
    "Summary",
    "score",
    "score_file",
]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to load, which a mistyped path need not wait for.
    if name == "score":
        from genossm.variants.scorer import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

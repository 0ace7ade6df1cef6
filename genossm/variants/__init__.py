"""Scores of variants: alleles in, log-likelihood ratios or reasons out; VCF and BCF files."""

from __future__ import annotations

from genossm.variants.files import FilePolicy, Summary, score_file
from genossm.variants.scorer import Allele, ScoredAllele, ScoringOptions, score
from genossm.variants.status import STATUS_MEANINGS, Status

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

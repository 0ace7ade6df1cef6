"""Which word an allele gets, and that the first reason in the list wins."""

from __future__ import annotations

import pytest

from genossm.models import SequenceModel
from genossm.variants import Allele, ScoringOptions, Status
from genossm.variants.scorer import Scorer

LETTERS = "ACGTRYNNacgtACGTACGTACGTACGTACGTACGTACGT"


@pytest.fixture
def scorer(model: SequenceModel, make_genome) -> Scorer:
    return Scorer(model, make_genome({"chr1": LETTERS, "MT": "ACGT"}), ScoringOptions(context=32))


@pytest.mark.parametrize(
    ("contig", "pos1", "ref", "alt", "word"),
    [
        ("chr1", 1, "A", None, "NO_ALT"),
        ("nowhere", 1, "N", None, "NO_ALT"),
        ("chr1", 1, "A", "<DEL>", "SYMBOLIC"),
        ("chr1", 1, "A", "<NON_REF>", "SYMBOLIC"),
        ("chr1", 1, "A", "<*>", "SYMBOLIC"),
        ("nowhere", 9, "N", "<DUP:TANDEM>", "SYMBOLIC"),
        ("chr1", 1, "A", "A<ctg1>", "SYMBOLIC"),
        ("chr1", 1, "A", "A[<ctg1>:7[", "BREAKEND"),
        ("chr1", 1, "A", "A[2:321[", "BREAKEND"),
        ("chr1", 1, "A", "]13:123456]T", "BREAKEND"),
        ("chr1", 1, "N", ".G", "BREAKEND"),
        ("chr1", 1, "G", "G.", "BREAKEND"),
        ("chr1", 1, "A", "*", "STAR_ALLELE"),
        ("nowhere", 1, "N", "*", "STAR_ALLELE"),
        ("chr1", 7, "N", "A", "NON_ACGT"),
        ("chr1", 1, "A", "N", "NON_ACGT"),
        ("chr1", 1, "A", "R", "NON_ACGT"),
        ("chr1", 5, "R", "G", "NON_ACGT"),
        ("chr1", 1, "A", ".", "NON_ACGT"),
        ("nowhere", 1, "A", "I", "NON_ACGT"),
        ("nowhere", 1, "A", "C", "CONTIG_UNKNOWN"),
        ("chr1", 0, "A", "C", "OUT_OF_CONTIG"),
        ("chr1", 40, "TA", "T", "OUT_OF_CONTIG"),
        ("chr1", 4_000_000_000, "T", "A", "OUT_OF_CONTIG"),
        ("chr1", 1, "C", "A", "REF_MISMATCH"),
        ("chr1", 7, "A", "C", "REF_MISMATCH"),
        ("chr1", 5, "G", "C", "REF_MISMATCH"),
        ("chr1", 1, "ACGTT", "A", "REF_MISMATCH"),
        ("chr1", 9, "ACGTAC", "A", "TOO_LONG"),
        ("chr1", 9, "A", "ATTTTT", "TOO_LONG"),
        ("chr1", 9, "ACGTA", "A", "OK"),
        ("chr1", 9, "ACGTAC", "ACGTAG", "OK"),
        ("chr1", 1, "a", "c", "OK"),
        ("chr1", 5, "A", "G", "OK"),
        ("chr1", 6, "C", "G", "OK"),
        ("1", 1, "A", "C", "OK"),
        ("chrM", 4, "T", "C", "OK"),
    ],
)
def test_first_reason_that_applies(
    contig: str, pos1: int, ref: str, alt: str | None, word: str, scorer: Scorer
) -> None:
    [found] = scorer.score([scorer.locate(Allele(contig, pos1, ref, alt))])
    assert found.status == word
    assert (found.llr is not None) == (found.status is Status.OK)

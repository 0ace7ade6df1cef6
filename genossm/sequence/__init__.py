"""Alphabet, tokenizers, intervals and variants: pure functions and values, no files, no torch."""

from __future__ import annotations

from genossm.sequence.alphabet import (
    BASES,
    iupac_first,
    iupac_matches,
    reverse_complement,
    reverse_complement_array,
)
from genossm.sequence.bpe import BytePairTokenizer
from genossm.sequence.complement import complement_ids_from_map
from genossm.sequence.interval import Interval, parse_region
from genossm.sequence.kmer import KmerTokenizer
from genossm.sequence.normalize import (
    Placement,
    anchored,
    check_reference,
    equivalent_span,
    left_align,
    place,
    place_on_circle,
    placed,
    trim,
)
from genossm.sequence.tokenizer import NucleotideTokenizer, Tokenizer, tokenizer_from_dict
from genossm.sequence.variant import Variant, trimmed_alleles
from genossm.sequence.windows import context_on, scoring_window

__all__ = [
    "BASES",
    "BytePairTokenizer",
    "Interval",
    "KmerTokenizer",
    "NucleotideTokenizer",
    "Placement",
    "Tokenizer",
    "Variant",
    "anchored",
    "check_reference",
    "complement_ids_from_map",
    "context_on",
    "equivalent_span",
    "iupac_first",
    "iupac_matches",
    "left_align",
    "parse_region",
    "place",
    "place_on_circle",
    "placed",
    "reverse_complement",
    "reverse_complement_array",
    "scoring_window",
    "tokenizer_from_dict",
    "trim",
    "trimmed_alleles",
]

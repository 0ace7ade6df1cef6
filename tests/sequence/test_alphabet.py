from __future__ import annotations

import numpy as np
import pytest
from Bio.Seq import Seq
from hypothesis import given

from genossm.core.errors import AlphabetError
from genossm.sequence import iupac_first, iupac_matches, reverse_complement, reverse_complement_array
from genossm.sequence.alphabet import IUPAC_BASES
from genossm.testing.strategies import dna

ANY_LETTER = "ACGTRYSWKMBDHVNacgtryswkmbdhvn"


@given(dna(0, 300, letters=ANY_LETTER))
def test_reverse_complement_is_biopythons_and_its_own_inverse(sequence: str) -> None:
    expected = str(Seq(sequence).reverse_complement())
    assert reverse_complement(sequence) == expected
    assert reverse_complement(sequence.encode()) == expected.encode()
    array = np.frombuffer(sequence.encode(), dtype=np.uint8)
    assert reverse_complement_array(array).tobytes() == expected.encode()
    assert reverse_complement(reverse_complement(sequence)) == sequence


@pytest.mark.parametrize(
    ("sequence", "letter", "place"), [("ACU", "U", 2), ("A-C", "-", 1), ("éA", "é", 0), ("AC*", r"\*", 2)]
)
def test_letters_without_complement_are_named(sequence: str, letter: str, place: int) -> None:
    with pytest.raises(AlphabetError, match=f"{letter}' at position {place}"):
        reverse_complement(sequence)


def test_reverse_complement_array_returns_new_writable_memory() -> None:
    array = np.frombuffer(b"AACG", dtype=np.uint8)
    result = reverse_complement_array(array)
    result[0] = ord("N")
    assert array.tobytes() == b"AACG"


def test_iupac_first_is_the_alphabetically_first_base_and_n_stays() -> None:
    for code, bases in IUPAC_BASES.items():
        expected = "N" if code == "N" else min(bases)
        assert iupac_first(code) == expected
        assert iupac_first(code.lower().encode()) == expected.lower().encode()
    # The VCF specification's own example.
    assert iupac_first("R") == "A"


def test_iupac_matches_follows_the_vcf_rule() -> None:
    assert iupac_matches("R", "A")
    assert iupac_matches("r", "R")
    assert not iupac_matches("R", "G")
    assert not iupac_matches("N", "A")
    assert iupac_matches("N", "n")
    assert not iupac_matches("A", "R")

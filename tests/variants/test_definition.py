"""The definition itself, against sums done by hand on a few letters."""

from __future__ import annotations

import pytest
import torch

from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.definition import causal_llr


def ln_p(model: SequenceModel, text: str, place: int) -> float:
    """ln p of letter `place` of `text` after [BOS] and everything before it."""
    with torch.inference_mode():
        logits = model(model.encode(text, add_bos=True)).logits[0, place].double()
    return float(torch.log_softmax(logits[7:11], dim=0)["ACGT".index(text[place])])


def test_substitution_plus_strand(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGTACGT"})
    expected = sum(ln_p(model, "ACATACGT", i) - ln_p(model, "ACGTACGT", i) for i in (2, 3))
    found = causal_llr(model, genome, Variant("1", 3, "G", "A"), context=64, horizon=2)
    assert found == pytest.approx(expected, abs=1e-5)


def test_minus_strand_reads_the_reverse_complement(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGTACCT"})
    # AGGTACGT is the other strand; base 3 (G to A) is its base 6 (C to T).
    expected = sum(ln_p(model, "AGGTATGT", i) - ln_p(model, "AGGTACGT", i) for i in (5, 6, 7))
    found = causal_llr(model, genome, Variant("1", 3, "G", "A"), context=64, horizon=16, strand="-")
    assert found == pytest.approx(expected, abs=1e-5)


def test_deletion_compares_equally_many_letters_after_the_repeat(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "CAAAGTCC"})
    # CAAGTCC: the haplotypes part at the fourth letter, and the shorter one has four letters from there on.
    expected = sum(ln_p(model, "CAAGTCC", i) - ln_p(model, "CAAAGTCC", i) for i in (3, 4, 5, 6))
    for text in ("1:1:CA>C", "1:3:AA>A"):
        found = causal_llr(model, genome, Variant.parse(text), context=64, horizon=16)
        assert found == pytest.approx(expected, abs=1e-5)


def test_letters_that_are_no_base_count_nothing_but_are_read(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGNT"})
    expected = sum(ln_p(model, "ATGNT", i) - ln_p(model, "ACGNT", i) for i in (1, 2, 4))
    found = causal_llr(model, genome, Variant("1", 2, "C", "T"), context=64, horizon=16)
    assert found == pytest.approx(expected, abs=1e-5)


def test_window_begins_half_a_context_at_a_time(model: SequenceModel, make_genome) -> None:
    letters = "ACGTTGCAAGGCTATCCGATGACT"
    genome = make_genome({"1": letters})
    # Context 16: position 12 has k = (12 - 4) // 8 = 1, so the window begins at 8.
    alternative = letters[8:12] + "C" + letters[13:]
    expected = sum(ln_p(model, alternative, i) - ln_p(model, letters[8:], i) for i in (4, 5, 6, 7))
    found = causal_llr(model, genome, Variant("1", 13, letters[12], "C"), context=16, horizon=99)
    assert found == pytest.approx(expected, abs=1e-5)

"""The definition itself, against sums done by hand on a few letters."""

from __future__ import annotations

import pytest
import torch

from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.definition import causal_llr, embedding_distances, masked_llr


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


def ln_masked(model: SequenceModel, text: str, places: list[int], place: int, base: str) -> float:
    """ln p of a base at one of the places of `text` that are masked."""
    ids = model.encode("".join("N" if i in places else letter for i, letter in enumerate(text)))
    ids[0, places] = 3
    with torch.inference_mode():
        logits = model(ids).logits[0, place].double()
    return float(torch.log_softmax(logits[7:11], dim=0)["ACGT".index(base)])


def test_masked_substitution_asks_the_bases_themselves(masked_model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGTACGT"})
    found = masked_llr(masked_model, genome, Variant("1", 2, "CGT", "TGA"), context=64)
    # CGT to TGA is masked whole, the unchanged G in the middle with it.
    expected = sum(
        ln_masked(masked_model, "ACGTACGT", [1, 2, 3], place, alt)
        - ln_masked(masked_model, "ACGTACGT", [1, 2, 3], place, ref)
        for place, ref, alt in ((1, "C", "T"), (3, "T", "A"))
    )
    assert found == pytest.approx(expected, abs=1e-5)


def test_masked_substitution_on_the_minus_strand(masked_model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGTACCT"})
    # AGGTACGT is the other strand; base 3 (G to A) is its base 6 (C to T).
    expected = ln_masked(masked_model, "AGGTACGT", [5], 5, "T") - ln_masked(masked_model, "AGGTACGT", [5], 5, "C")
    found = masked_llr(masked_model, genome, Variant("1", 3, "G", "A"), context=64, strand="-")
    assert found == pytest.approx(expected, abs=1e-5)


def test_masked_deletion_asks_the_bases_around_its_repeat(masked_model: SequenceModel, make_genome) -> None:
    reference, alternative = "TGCATGCATCAAAGTCCGNATGCATT", "TGCATGCATCAAGTCCGNATGCATT"
    genome = make_genome({"1": reference})
    # The repeat AAA is bases 11 to 13, AA of the alternative 11 and 12. N is a neighbour, but no target.
    expected = 0.0
    for sign, text, places in (
        (1, alternative, [*range(2, 10), *range(12, 20)]),
        (-1, reference, [*range(2, 10), *range(13, 21)]),
    ):
        expected += sign * sum(ln_masked(masked_model, text, [i], i, text[i]) for i in places if text[i] != "N")
    for text in ("1:10:CA>C", "1:12:AA>A"):
        found = masked_llr(masked_model, genome, Variant.parse(text), context=128)
        assert found == pytest.approx(expected, abs=1e-5)


def test_masked_change_of_length_at_the_contigs_ends(masked_model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "ACGTC"})
    expected = 0.0
    for sign, text, places in ((1, "ACTTGTC", [0, 1, 5, 6]), (-1, "ACGTC", [0, 1, 3, 4])):
        expected += sign * sum(ln_masked(masked_model, text, [i], i, text[i]) for i in places)
    found = masked_llr(masked_model, genome, Variant("1", 3, "G", "TTG"), context=64)
    # TT stands between C and G: everything else is around it.
    expected += ln_masked(masked_model, "ACTTGTC", [4], 4, "G") - ln_masked(masked_model, "ACGTC", [2], 2, "G")
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_embedding_distances_of_a_window(kind: str, request: pytest.FixtureRequest, make_genome) -> None:
    tried = request.getfixturevalue(kind)
    bos = int(tried.begins_with_bos)
    means = []
    with torch.inference_mode():
        for text in ("ACTTACGT", "ACGTACGT"):
            states = tried(tried.encode(text, add_bos=bool(bos)), return_hidden_states=True).hidden_states
            means.append(states[-1][0, bos:].double().mean(dim=0))
    alt, ref = means
    expected = float((alt - ref).norm()), 1 - float(torch.cosine_similarity(alt, ref, dim=0))
    found = embedding_distances(tried, make_genome({"1": "ACGTACGT"}), Variant("1", 3, "G", "T"), context=64)
    # The contig is shorter than what counts as around the allele.
    assert found == pytest.approx((*expected, *expected), abs=1e-6)

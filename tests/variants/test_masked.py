"""Masked ratios against their definition, and what they must not depend on."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import MethodError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant, reverse_complement
from genossm.testing import random_sequence
from genossm.testing.strategies import repetitive_dna, variants
from genossm.variants import Allele, ScoredAllele, ScoringOptions, Status, masked_passes, score, window_batches
from genossm.variants.definition import masked_llr
from genossm.variants.scorer import Scorer

# Two ways to the same score agree to 1e-3 nats per 1,024 summed letters; at most 32 are summed here.
TOLERANCE = 32 * 1e-3 / 1024
CONTEXT = 1024


def assert_same(found: list[ScoredAllele], wanted: list[ScoredAllele]) -> None:
    assert [one.status for one in found] == [one.status for one in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a.strand_scores == pytest.approx(b.strand_scores, abs=TOLERANCE)


def assert_defined(
    model: SequenceModel, genome: Genome, wanted: list[Variant], *, context: int, batch_size: int | None = None
) -> list[float]:
    scored = list(score(model, genome, wanted, context=context, both_strands=True, batch_size=batch_size))
    assert [one.variant for one in scored] == wanted
    for one in scored:
        for strand, value in zip("+-", one.strand_scores, strict=True):
            expected = masked_llr(model, genome, one.variant, context=context, strand=strand)
            assert value == pytest.approx(expected, abs=TOLERANCE), (one.variant, strand)
        assert one.llr == pytest.approx(sum(one.strand_scores) / 2)
        assert one.embedding is None
    return [one.llr for one in scored if one.llr is not None]


def test_real_variants(masked_model: SequenceModel, human_genome: Genome, human_variants) -> None:
    substitutions, others = human_variants
    chosen = random.Random(5).sample(substitutions, 6) + others[:6]
    values = assert_defined(masked_model, human_genome, chosen, context=CONTEXT)
    assert np.abs(values).min() > 1e-3


def test_real_variants_by_other_authors_models(caduceus: SequenceModel, human_genome: Genome, human_variants) -> None:
    substitutions, others = human_variants
    assert_defined(caduceus, human_genome, substitutions[:4] + others[:3], context=256)


@settings(max_examples=12)
@given(data=st.data(), letters=repetitive_dna(4, 30))
def test_any_variant(data: st.DataObject, letters: str, masked_model: SequenceModel, make_genome) -> None:
    chosen = data.draw(st.lists(variants(letters), min_size=1, max_size=4))
    assert_defined(masked_model, make_genome({"1": letters}), chosen, context=64, batch_size=3)


def test_n_and_ambiguity_codes_around(masked_model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "NNNNACGTRRGGTANNNMCAAMAAATTYGCATTACGNNACGTTG"})
    # R and M read as A where REF says so, beside a change, under it, and as a letter of its repeat.
    texts = ("1:7:G>T", "1:9:A>C", "1:9:AAG>CTA", "1:18:A>T", "1:19:CA>C", "1:22:A>AA", "1:28:C>CG", "1:36:G>GTT")
    assert_defined(masked_model, genome, [Variant.parse(text) for text in texts], context=64)


def test_a_repeat_that_passes_the_end_of_its_window(masked_model: SequenceModel, make_genome) -> None:
    head = random_sequence(40, seed=2).decode() + "C"
    genome = make_genome({"1": head + "AG" * 60 + "TTCAGT"})
    chosen = [Variant("1", 41, "CAG", "C"), Variant("1", 41, "C", "CAG"), Variant("1", 46, "AGAG", "AG")]
    values = assert_defined(masked_model, genome, chosen, context=64)
    assert values[0] == pytest.approx(values[2], abs=TOLERANCE)


@pytest.mark.parametrize("context", [8, 16, 24])
def test_windows_shorter_than_what_is_asked_for(context: int, masked_model: SequenceModel, make_genome) -> None:
    letters = random_sequence(60, seed=9).decode()
    chosen = [Variant("1", pos1, letters[pos1 - 1], letters[pos1 - 1] + "A") for pos1 in (2, 17, 30, 44, 59)]
    chosen += [Variant("1", pos1, letters[pos1 - 1 : pos1 + 1], letters[pos1 - 1]) for pos1 in (7, 31, 45)]
    assert_defined(masked_model, make_genome({"1": letters}), chosen, context=context)


def test_nothing_to_compare_is_zero(masked_model: SequenceModel, make_genome) -> None:
    [one] = score(masked_model, make_genome({"1": "AAAA"}), [Variant("1", 1, "AA", "A")], context=64)
    assert (one.status, one.llr) == (Status.OK, 0.0)
    [same] = score(masked_model, make_genome({"1": "ACGT"}), [Allele("1", 2, "C", "c")], context=64, both_strands=True)
    assert (same.status, same.llr, same.strand_scores) == (Status.OK, 0.0, (0.0, 0.0))


def test_alt_against_ref_and_back_are_one_number(masked_model: SequenceModel, human_slice: bytes, make_genome) -> None:
    """The mask hides which of the two stands there."""
    ref = human_slice[49_998:50_001].decode()
    alt = ref.translate(str.maketrans("ACGT", "CATG"))
    changed = human_slice[:49_998] + alt.encode() + human_slice[50_001:]
    [there] = score(masked_model, make_genome({"20": human_slice}), [Variant("20", 49_999, ref, alt)], context=CONTEXT)
    [back] = score(masked_model, make_genome({"20": changed}), [Variant("20", 49_999, alt, ref)], context=CONTEXT)
    assert there.llr == pytest.approx(-(back.llr or 0.0), abs=TOLERANCE)
    assert there.llr != pytest.approx(0.0, abs=1e-2)


@settings(max_examples=15)
@given(data=st.data(), letters=repetitive_dna(4, 20))
def test_every_form_of_a_change_scores_the_same(
    data: st.DataObject, letters: str, masked_model: SequenceModel, make_genome
) -> None:
    one = data.draw(variants(letters))
    forms: list[Variant] = []
    for before, after in ((0, 0), (1, 0), (0, 2), (3, 4)):
        start, end = max(0, one.start0 - before), min(len(letters), one.end0 + after)
        prefix, suffix = letters[start : one.start0], letters[one.end0 : end]
        forms.append(Variant("1", start + 1, prefix + one.ref + suffix, prefix + one.alt + suffix))
    found = list(score(masked_model, make_genome({"1": letters}), forms, context=256, both_strands=True))
    assert_same(found, [found[0]] * len(found))


@settings(max_examples=10)
@given(data=st.data(), letters=repetitive_dna(4, 16))
def test_the_other_strand_of_the_genome_is_the_other_strand_of_the_score(
    data: st.DataObject, letters: str, masked_model: SequenceModel, make_genome
) -> None:
    one = data.draw(variants(letters))
    turned = Variant("1", len(letters) - one.end0 + 1, reverse_complement(one.ref), reverse_complement(one.alt))
    # One window holds the contig, so that both genomes are read from end to end.
    [plain] = score(masked_model, make_genome({"1": letters}), [one], context=1024, both_strands=True)
    [other] = score(
        masked_model, make_genome({"1": reverse_complement(letters)}), [turned], context=1024, both_strands=True
    )
    assert plain.strand_scores == pytest.approx(other.strand_scores[::-1], abs=TOLERANCE)


def test_neither_order_nor_company_nor_batch_size_matters(
    masked_model: SequenceModel, human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    substitutions, others = human_variants
    chosen = others[:8] + substitutions[:15]
    together = list(score(masked_model, human_genome, chosen, context=512))
    alone = [one for variant in chosen[::4] for one in score(masked_model, human_genome, [variant], context=512)]
    assert_same(alone, together[::4])
    monkeypatch.setattr(window_batches, "_GROUP", 3)
    for batch_size in (1, 7):
        shuffled = random.Random(batch_size).sample(range(len(chosen)), len(chosen))
        mixed = score(masked_model, human_genome, [chosen[i] for i in shuffled], context=512, batch_size=batch_size)
        assert_same(list(mixed), [together[i] for i in shuffled])


def test_circular_contigs_go_on_at_their_origin(masked_model: SequenceModel, make_genome) -> None:
    letters = "ACGTTGCAAGGCTATCCGATGACTTGACCA" * 3 + "GGATCATTACGCAGT"
    circular = make_genome({"M": letters}, circular=["M"])
    straight = make_genome({"M": letters + letters[:90]})
    chosen = [Variant("M", 101, letters[100], "T"), Variant("M", 105, "T", "TG"), Variant("M", 96, "CA", "C")]
    chosen = [one for one in chosen if letters[one.start0 :].startswith(one.ref) and one.ref != one.alt]
    assert len(chosen) >= 2
    found = list(score(masked_model, circular, chosen, context=64, both_strands=True))
    assert_same(found, list(score(masked_model, straight, chosen, context=64, both_strands=True)))
    cut = list(score(masked_model, make_genome({"M": letters}), chosen, context=64))
    assert cut[1].llr != pytest.approx(found[1].strand_scores[0], abs=1e-3)


def rows_run(model: SequenceModel, genome: Genome, wanted: list[Variant], **options: object) -> tuple[list, int]:
    scorer = Scorer(model, genome, ScoringOptions(context=256, **options))  # type: ignore[arg-type]
    counts: list[int] = []
    return scorer.score([scorer.locate(one) for one in wanted], counts.append), sum(counts)


def test_equal_probes_are_run_once(masked_model: SequenceModel, human_genome: Genome) -> None:
    letter = chr(human_genome.reader("20")(49_999, 50_000)[0])
    alts = [base for base in "ACGT" if base != letter]
    site = [Variant("20", 50_000, letter, alt) for alt in alts]
    assert rows_run(masked_model, human_genome, site)[1] == 1
    assert rows_run(masked_model, human_genome, site * 2, both_strands=True)[1] == 2
    inserted = [Variant("20", 50_000, letter, letter + unit) for unit in ("ACACGT", "CATTGC")]
    one, two = (rows_run(masked_model, human_genome, inserted[:count])[1] for count in (1, 2))
    assert one == 32
    # The second adds its own haplotype's sixteen, and those bases of the reference that the first did not ask for.
    assert 32 + 16 <= two < 32 + 32
    # What an indel asks of the reference next to it is what a substitution asks.
    beside = chr(human_genome.reader("20")(49_995, 49_996)[0])
    substitution = Variant("20", 49_996, beside, "A" if beside != "A" else "C")
    assert rows_run(masked_model, human_genome, [inserted[0], substitution])[1] == 32


def test_an_equivariant_model_reads_both_strands_in_one_run(
    equivariant_model: SequenceModel, masked_model: SequenceModel, human_genome: Genome, human_variants
) -> None:
    substitutions, others = human_variants
    chosen = substitutions[:5] + others[:2]
    found, rows = rows_run(equivariant_model, human_genome, chosen)
    assert rows < rows_run(masked_model, human_genome, chosen, both_strands=True)[1] * 0.6
    for one in found:
        assert one.strand_scores == (one.llr, one.llr)
        for strand in "+-":
            expected = masked_llr(equivariant_model, human_genome, one.variant, context=256, strand=strand)
            assert one.llr == pytest.approx(expected, abs=TOLERANCE), (one.variant, strand)
    assert_same(rows_run(equivariant_model, human_genome, chosen, both_strands=True)[0], found)


def test_logits_are_made_at_masked_places_alone(
    masked_model: SequenceModel, human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    head = type(masked_model.head).forward
    monkeypatch.setattr(
        type(masked_model.head), "forward", lambda self, h: seen.append(h[..., 0].numel()) or head(self, h)
    )
    _, rows = rows_run(masked_model, human_genome, human_variants[0][:9])
    assert sum(seen) == rows == 9


def test_batches_hold_a_bounded_number_of_tokens(
    masked_model: SequenceModel, human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    run = masked_passes.masked_log_probabilities

    def watched(model, ids, masked):  # type: ignore[no-untyped-def]
        shapes.append(tuple(ids.shape))
        return run(model, ids, masked)

    monkeypatch.setattr(masked_passes, "masked_log_probabilities", watched)
    substitutions, others = human_variants
    list(score(masked_model, human_genome, substitutions[:40] + others[:3], context=1024))
    assert max(rows * length for rows, length in shapes) <= 1 << 14
    assert max(rows for rows, _ in shapes) > 1


def test_methods_that_the_objective_does_not_give(
    model: SequenceModel, masked_model: SequenceModel, human_genome: Genome
) -> None:
    with pytest.raises(MethodError, match="llr needs a causal model; this one is masked and gives mlm, embedding"):
        score(masked_model, human_genome, [], methods="llr")
    with pytest.raises(MethodError, match="mlm needs a masked model; this one is causal and gives llr, embedding"):
        score(model, human_genome, [], methods=["embedding", "mlm"])


def test_real_indels_as_found_and_as_normalised(equivariant_model: SequenceModel, human_fasta: Path) -> None:
    """Real indels as found and as normalised, on the bgzip FASTA."""
    texts = ("20:2171404:A>AA", "20:2171402:T>TA", "20:3373441:TCTTT>T", "20:3373437:GCTTT>G")
    with genossm.genome.open(human_fasta) as genome:
        first, second, third, fourth = score(equivariant_model, genome, map(Variant.parse, texts), context=256)
        expected = masked_llr(equivariant_model, genome, Variant.parse(texts[3]), context=256)
    assert_same([first, third], [second, fourth])
    assert fourth.llr == pytest.approx(expected, abs=TOLERANCE)

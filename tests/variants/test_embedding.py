"""Embedding distances against their definition, for causal and masked models."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.testing.strategies import repetitive_dna, variants
from genossm.variants import Allele, EmbeddingDistances, ScoringOptions, score, window_batches
from genossm.variants.definition import embedding_distances
from genossm.variants.scorer import Scorer

# Hidden states are of order 1 in float32, and a mean is no less exact than they are.
TOLERANCE = 2e-6
KINDS = ["model", "model_without_bos", "masked_model", "equivariant_model"]


@pytest.fixture(params=KINDS)
def any_model(request: pytest.FixtureRequest) -> SequenceModel:
    return request.getfixturevalue(request.param)


def distances(
    model: SequenceModel, genome: Genome, wanted: list[Variant], *, context: int, **options: object
) -> list[EmbeddingDistances]:
    scored = score(model, genome, wanted, methods="embedding", context=context, **options)  # type: ignore[arg-type]
    return [one.embedding for one in scored if one.embedding is not None]


def assert_defined(model: SequenceModel, genome: Genome, wanted: list[Variant], *, context: int) -> None:
    for both in (False, True):
        found = distances(model, genome, wanted, context=context, both_strands=both)
        for variant, one in zip(wanted, found, strict=True):
            by_strand = [
                embedding_distances(model, genome, variant, context=context, strand=strand)
                for strand in ("+-" if both else "+")
            ]
            expected = [sum(values) / len(values) for values in zip(*by_strand)]
            assert one == pytest.approx(expected, abs=TOLERANCE), (variant, both)


def test_real_variants(any_model: SequenceModel, human_genome: Genome, human_variants) -> None:
    substitutions, others = human_variants
    # A window longer than what is around an allele, so that the two means differ.
    assert_defined(any_model, human_genome, substitutions[:3] + others[:3], context=4096)
    around, _, window, _ = distances(any_model, human_genome, substitutions[:1], context=4096)[0]
    assert around > 2 * window > 0


def test_other_authors_models(caduceus: SequenceModel, human_genome: Genome, human_variants) -> None:
    substitutions, others = human_variants
    assert_defined(caduceus, human_genome, substitutions[:2] + others[:2], context=256)


@settings(max_examples=10)
@given(data=st.data(), letters=repetitive_dna(4, 30))
def test_any_variant(data: st.DataObject, letters: str, masked_model: SequenceModel, make_genome) -> None:
    chosen = data.draw(st.lists(variants(letters), min_size=1, max_size=3))
    assert_defined(masked_model, make_genome({"1": letters}), chosen, context=64)


def test_ambiguity_codes_repeats_past_the_window_and_long_deletions(masked_model: SequenceModel, make_genome) -> None:
    codes = make_genome({"1": "NNNNACGTRRGGTANNNMCAAMAAATTYGCATTACGNNACGTTG"})
    texts = ("1:9:A>C", "1:9:AAG>CTA", "1:18:A>T", "1:22:A>AA", "1:36:G>GTT")
    assert_defined(masked_model, codes, [Variant.parse(text) for text in texts], context=64)
    head = random_sequence(40, seed=2).decode() + "C"
    repeat = make_genome({"1": head + "AG" * 60 + "TTCAGT"})
    assert_defined(masked_model, repeat, [Variant("1", 41, "CAG", "C"), Variant("1", 41, "C", "CAG")], context=64)
    letters = random_sequence(40_000, seed=3).decode()
    deletion = Variant("1", 9001, letters[9000:11_000], letters[9000])
    assert_defined(masked_model, make_genome({"1": letters}), [deletion], context=16_384)


def test_no_change_no_distance(any_model: SequenceModel, make_genome) -> None:
    [one] = score(any_model, make_genome({"1": "ACGTACGT"}), [Allele("1", 2, "C", "c")], methods="embedding")
    assert one.embedding == (0.0, 0.0, 0.0, 0.0)
    assert (one.llr, one.strand_scores) == (None, ())


def test_beside_the_models_own_method(any_model: SequenceModel, human_genome: Genome, human_variants) -> None:
    own = "llr" if any_model.objective == "causal" else "mlm"
    chosen = human_variants[0][:3]
    both = list(score(any_model, human_genome, chosen, methods=["embedding", own], context=512))
    alone = list(score(any_model, human_genome, chosen, context=512))
    assert [one.llr for one in both] == pytest.approx([one.llr for one in alone])
    assert [one.embedding for one in both] == distances(any_model, human_genome, chosen, context=512)
    assert all(one.embedding is None for one in alone)


def test_neither_order_nor_company_nor_batch_size_matters(
    masked_model: SequenceModel, human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    substitutions, others = human_variants
    chosen = substitutions[:10] + others[:6]
    together = distances(masked_model, human_genome, chosen, context=512)
    monkeypatch.setattr(window_batches, "_GROUP", 3)
    shuffled = random.Random(1).sample(range(len(chosen)), len(chosen))
    mixed = distances(masked_model, human_genome, [chosen[i] for i in shuffled], context=512, batch_size=2)
    for place, one in zip(shuffled, mixed, strict=True):
        assert one == pytest.approx(together[place], abs=TOLERANCE)
    [alone] = distances(masked_model, human_genome, chosen[3:4], context=512)
    assert alone == pytest.approx(together[3], abs=TOLERANCE)


def test_a_window_of_the_reference_is_run_once(masked_model: SequenceModel, human_genome: Genome) -> None:
    reader = human_genome.reader("20")
    chosen = []
    for pos1 in range(50_000, 50_020):
        letter = chr(reader(pos1 - 1, pos1)[0])
        chosen.append(Variant("20", pos1, letter, "CATG"["ACGT".index(letter)]))
    scorer = Scorer(masked_model, human_genome, ScoringOptions(context=512, methods=("embedding",)))
    counts: list[int] = []
    found = scorer.score([scorer.locate(one) for one in chosen], counts.append)
    assert len({one.embedding for one in found}) == 20
    assert sum(counts) == 20 + len({max(0, (one.start0 - 128) // 256) for one in chosen})

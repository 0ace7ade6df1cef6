"""Scores from stored states against the definition, and what a score must not depend on."""

from __future__ import annotations

import doctest
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import NumericsError, UsageError, VariantError
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import Interval, Variant
from genossm.testing.strategies import repetitive_dna, variants
from genossm.variants import Allele, ScoredAllele, ScoringOptions, Status, passes, score
from genossm.variants.definition import causal_llr

# Two ways to the same score agree to 1e-3 nats per 1,024 summed letters.
NATS_PER_LETTER = 1e-3 / 1024


def assert_same(found: list[ScoredAllele], wanted: list[ScoredAllele], letters: int) -> None:
    assert [one.status for one in found] == [one.status for one in wanted]
    for a, b in zip(found, wanted):
        assert a.strand_scores == pytest.approx(b.strand_scores, abs=NATS_PER_LETTER * letters)


def assert_defined(
    model: SequenceModel, genome: Genome, wanted: list[Variant], *, context: int, horizon: int | None
) -> None:
    longest = min(horizon or context, context // 4)
    scored = list(score(model, genome, wanted, context=context, horizon=horizon, both_strands=True, batch_size=5))
    assert [one.variant for one in scored] == wanted
    for one in scored:
        for strand, value in zip("+-", one.strand_scores, strict=True):
            expected = causal_llr(model, genome, one.variant, context=context, horizon=longest, strand=strand)
            assert value == pytest.approx(expected, abs=NATS_PER_LETTER * longest), (one.variant, strand)
        assert one.llr == pytest.approx(sum(one.strand_scores) / 2)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts, batches and segments so small that a short window has many of each."""
    monkeypatch.setattr(passes, "_STRIDE", {"cpu": 8})
    monkeypatch.setattr(passes, "_WINDOWS", 3)
    monkeypatch.setattr(passes, "_PASS_TOKENS", {"cpu": 128})
    monkeypatch.setattr(passes, "_WAITING_TOKENS", {"cpu": 512})


def test_real_variants_equal_two_full_passes(model: SequenceModel, human_genome: Genome, human_variants) -> None:
    substitutions, indels = human_variants
    chosen = indels[:15] + random.Random(5).sample(substitutions, 8)
    assert_defined(model, human_genome, chosen, context=1024, horizon=None)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("bos", [True, False])
def test_any_variant_equals_two_full_passes(
    bos: bool, model: SequenceModel, model_without_bos: SequenceModel, make_genome
) -> None:
    tried = model if bos else model_without_bos

    @settings(max_examples=12)
    @given(data=st.data(), letters=repetitive_dna(4, 30), horizon=st.sampled_from([1, 5, None]))
    def check(data: st.DataObject, letters: str, horizon: int | None) -> None:
        chosen = data.draw(st.lists(variants(letters), min_size=1, max_size=4))
        assert_defined(tried, make_genome({"1": letters}), chosen, context=64, horizon=horizon)

    check()


@pytest.mark.usefixtures("small_pieces")
def test_n_and_ambiguity_codes_around(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "NNNNACGTRRGGTANNNMCAAMAAATTYGCATTACGNNACGTTG"})
    texts = ("1:7:G>T", "1:11:G>GC", "1:12:G>T", "1:26:T>A", "1:33:CGT>C", "1:36:G>GTT")
    chosen = [Variant.parse(t) for t in texts if matches(genome, t)]
    # M reads as A where REF says so, in the middle of a repeat of which it is a letter.
    repeat = [
        Variant("1", 19, "CA", "C"),
        Variant("1", 22, "A", "AA"),
        Variant("1", 9, "A", "C"),
        Variant("1", 18, "A", "T"),
    ]
    assert len(chosen) >= 4
    assert_defined(model, genome, [*chosen, *repeat], context=64, horizon=None)


def matches(genome: Genome, text: str) -> bool:
    variant = Variant.parse(text)
    return genome.reader("1")(variant.start0, variant.end0) == variant.ref.encode()


def forms(variant: Variant, letters: str) -> Iterator[Variant]:
    """The same change written with more letters around it, as callers do."""
    for before, after in ((0, 0), (1, 0), (0, 2), (3, 4)):
        start, end = max(0, variant.start0 - before), min(len(letters), variant.end0 + after)
        prefix, suffix = letters[start : variant.start0], letters[variant.end0 : end]
        yield Variant(variant.contig, start + 1, prefix + variant.ref + suffix, prefix + variant.alt + suffix)


@settings(max_examples=15)
@given(data=st.data(), letters=repetitive_dna(4, 20))
def test_every_form_of_a_change_scores_the_same(
    data: st.DataObject, letters: str, model: SequenceModel, make_genome
) -> None:
    one = data.draw(variants(letters))
    found = list(score(model, make_genome({"1": letters}), forms(one, letters), context=256, both_strands=True))
    assert_same(found, [found[0]] * len(found), 64)


def test_neither_order_nor_company_nor_batch_size_matters(
    model: SequenceModel, human_genome: Genome, human_variants
) -> None:
    substitutions, indels = human_variants
    chosen = indels[:12] + substitutions[:25]
    options = {"context": 1024, "horizon": 128}
    together = list(score(model, human_genome, chosen, **options))
    alone = [one for variant in chosen[::5] for one in score(model, human_genome, [variant], **options)]
    assert_same(alone, together[::5], 128)
    shuffled = random.Random(2).sample(range(len(chosen)), len(chosen))
    mixed = list(score(model, human_genome, [chosen[i] for i in shuffled], **options, batch_size=3))
    assert_same(mixed, [together[i] for i in shuffled], 128)


def test_the_horizon_is_capped_by_a_quarter_of_the_context(model: SequenceModel, human_genome: Genome) -> None:
    letter = chr(human_genome.reader("20")(49_999, 50_000)[0])
    one = [Variant("20", 50_000, letter, "A" if letter != "A" else "C")]
    full, capped, short = (
        next(iter(score(model, human_genome, one, context=512, horizon=horizon))).llr for horizon in (None, 9999, 2)
    )
    assert full == capped
    assert short != pytest.approx(full, abs=1e-3)


def test_circular_contigs_go_on_at_their_origin(model: SequenceModel, make_genome) -> None:
    letters = "ACGTTGCAAGGCTATCCGATGACTTGACCA" * 3 + "GGATCATTACGCAGT"
    circular = make_genome({"M": letters}, circular=["M"])
    # A straight contig that goes on with the same letters: the same windows, none of which ends at the origin.
    straight = make_genome({"M": letters + letters[:90]})
    chosen = [Variant("M", pos1, letters[pos1 - 1], alt) for pos1, alt in ((101, "T"), (105, "TG"), (96, "C"))]
    chosen = [variant for variant in chosen if variant.ref != variant.alt]
    found = list(score(model, circular, chosen, context=64, horizon=None, both_strands=True))
    assert_same(found, list(score(model, straight, chosen, context=64, horizon=None, both_strands=True)), 16)
    cut = list(score(model, make_genome({"M": letters}), chosen, context=64, horizon=None))
    assert cut[0].llr != pytest.approx(found[0].strand_scores[0], abs=1e-3)


@pytest.mark.parametrize("text", ["1:8:TA>T", "1:9:A>AA", "1:8:TAAAAA>T"])
def test_haplotypes_that_end_before_they_differ_score_zero(text: str, model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": "GATTACGTAAAAA"})
    [found] = score(model, genome, [Variant.parse(text)], context=64)
    assert (found.llr, found.status) == (0.0, Status.OK)


def test_ref_equal_to_alt_scores_zero(model: SequenceModel, make_genome) -> None:
    [found] = score(model, make_genome({"1": "GATTACA"}), [Allele("1", 3, "T", "t")], context=64, both_strands=True)
    assert (found.llr, found.status, found.strand_scores) == (0.0, Status.OK, (0.0, 0.0))


def test_soft_masked_reference_scores_as_upper_case(model: SequenceModel, make_genome) -> None:
    one = [Allele("1", 4, "t", "G")]
    [lower] = score(model, make_genome({"1": "gattacagatt"}), one, context=64)
    [upper] = score(model, make_genome({"1": "GATTACAGATT"}), one, context=64)
    assert lower.llr == upper.llr
    assert lower.status is Status.OK


@pytest.mark.parametrize("options", [{"context": 6}, {"context": 1022}, {"horizon": 0}, {"batch_size": 0}])
def test_impossible_options_are_refused(options: dict[str, int], model: SequenceModel, make_genome) -> None:
    with pytest.raises(UsageError, match="not possible"):
        list(score(model, make_genome({"1": "ACGT"}), [], **options))


def test_weights_that_are_no_numbers_are_an_error(make_genome) -> None:
    broken = SequenceModel(StackConfig(d_model=8, n_layer=1)).eval()
    with torch.no_grad():
        broken.backbone.norm_f.weight[0] = torch.nan
    with pytest.raises(NumericsError, match="1:2:A>C scores"):
        list(score(broken, make_genome({"1": "GATTACA"}), [Variant("1", 2, "A", "C")], context=64))


# Three of vt's examples of normalisation (MIT), as its authors found and as they normalised them; GRCh37.
VT_PAIRS = (
    ("20:2171404:A>AA", "20:2171402:T>TA"),
    ("20:3373441:TCTTT>T", "20:3373437:GCTTT>G"),
    ("20:3635159:T>TT", "20:3635158:A>AT"),
)


def test_real_indels_as_found_and_as_normalised(model: SequenceModel, human_fasta: Path) -> None:
    with genossm.genome.open(human_fasta) as genome:
        found, normal = (
            list(score(model, genome, map(Variant.parse, texts), context=512, both_strands=True))
            for texts in zip(*VT_PAIRS)
        )
    assert all(one.status is Status.OK and one.llr for one in found)
    assert_same(found, normal, 128)


def test_the_example_in_the_docstring_runs(model: SequenceModel, human_fasta: Path) -> None:
    with genossm.genome.open(human_fasta) as genome:
        names = {"score": score, "model": model, "genome": genome, "Variant": Variant}
        [example] = doctest.DocTestFinder(recurse=False).find(score, "score", globs=names)
        assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=1)


def test_texts_and_a_single_variant_are_read(model: SequenceModel, human_genome: Genome) -> None:
    first = human_genome.fetch(Interval("20", 5_000, 5_001)).decode()
    text = f"20:5001:{first}>{'A' if first != 'A' else 'C'}"
    wanted = list(score(model, human_genome, [Variant.parse(text)], context=64))
    for given_as in ([text], text, Variant.parse(text)):
        assert list(score(model, human_genome, given_as, context=64)) == wanted


def test_arguments_of_another_kind_are_refused_by_name(model: SequenceModel, human_genome: Genome) -> None:
    path = human_genome.path
    for arguments, message in (
        ((human_genome, model, []), "got the genome first"),
        ((model, path, []), r"the genome is PosixPath.*genossm.genome.open"),
        (("a/model", human_genome, []), r"the model is 'a/model'.*genossm.load"),
        ((model, model, []), "the genome is a SequenceModel"),
        ((model, human_genome, path), "score_file"),
        ((model, human_genome, None), "the variants are None"),
        ((model, human_genome, [("20", 5_001, "A", "C")]), "is no variant"),
    ):
        with pytest.raises(UsageError, match=message):
            list(score(*arguments, context=64))  # type: ignore[call-overload]
    with pytest.raises(VariantError, match="Cannot read variant"):
        list(score(model, human_genome, ["calls.vcf"], context=64))


@pytest.mark.parametrize("name", ["context", "horizon", "neighbourhood"])
def test_lengths_are_whole_numbers_of_any_type(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} is 1024.0; wanted a whole number"):
        ScoringOptions(**{name: 1024.0})  # type: ignore[arg-type]
    assert type(getattr(ScoringOptions(**{name: np.int64(1024)}), name)) is int  # type: ignore[arg-type]


def test_a_compiled_model_scores_as_it_did(model: SequenceModel, human_genome: Genome) -> None:
    """What torch.compile gives is no SequenceModel, and passes a model's attributes on."""
    ref = human_genome.fetch(Interval("20", 5000, 5001)).decode()
    variant = Variant("20", 5001, ref, "A" if ref != "A" else "C")
    [plain] = score(model, human_genome, [variant], context=64, horizon=8)
    compiled = torch.compile(model, backend="eager")
    [found] = score(compiled, human_genome, [variant], context=64, horizon=8)  # type: ignore[arg-type]
    assert plain.status is Status.OK
    assert found.llr == plain.llr

"""Circular contigs have no ends: an allele on, beside or across the origin scores as on a contig cut elsewhere."""

from __future__ import annotations

import pytest

from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import Allele, ScoredAllele, Status, score

CONTEXT = 64
LETTERS = "AAACGTTGCAAGGCTATCCGATGACTTGACCA" * 3 + "GGATCATTACGCAGTCAA"
# The same circle on straight contigs, whose windows stand where those of the circle do: a whole number of halves of the
# context is put in front, and none of the windows asked for reaches an end.
FRONT = 2 * (CONTEXT // 2)
UNROLLED = LETTERS[-FRONT:] + LETTERS + LETTERS


CASES = (
    (1, "A", "C"),
    (4, "C", "T"),
    (len(LETTERS), "A", "G"),
    (len(LETTERS) - 2, "CAAAAACG", "CTTG"),
    (len(LETTERS) - 1, "AAA", "GTC"),
    (len(LETTERS) - 3, "TCAA", "T"),
)


def scores(model: SequenceModel, genome, variants, **options: object) -> list[ScoredAllele]:
    methods = {"causal": ("llr", "embedding"), "masked": ("mlm", "embedding")}[model.objective]
    found = list(score(model, genome, variants, methods=methods, context=CONTEXT, both_strands=True, **options))
    assert [one.status for one in found] == [Status.OK] * len(found)
    return found


@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_alleles_around_the_origin(kind: str, make_genome, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    circle = make_genome({"M": LETTERS}, circular=["M"])
    cut_elsewhere = make_genome({"M": UNROLLED})
    found = scores(model, circle, [Variant("M", pos1, ref, alt) for pos1, ref, alt in CASES])
    wanted = scores(model, cut_elsewhere, [Variant("M", pos1 + FRONT, ref, alt) for pos1, ref, alt in CASES])
    for one, other in zip(found, wanted):
        assert one.strand_scores == pytest.approx(other.strand_scores, abs=1e-4)
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)
        assert one.llr


@pytest.mark.parametrize("context", [64, 1024])
@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_an_indel_in_a_repeat_across_the_origin_has_one_score(
    kind: str, context: int, make_genome, request: pytest.FixtureRequest
) -> None:
    """AA at the end and AAA at the start are one repeat; the second context is longer than the circle."""
    model = request.getfixturevalue(kind)
    length = len(LETTERS)
    spelled = [
        Variant("M", length - 2, "CA", "C"),
        Variant("M", length, "AA", "A"),
        Variant("M", 1, "AA", "A"),
        Variant("M", 3, "AC", "C"),
        Variant("M", length - 2, "CAAAAAC", "CAAAAC"),
    ]
    circle = make_genome({"M": LETTERS}, circular=["M"])
    found = list(score(model, circle, spelled, context=context, both_strands=True))
    assert found[0].llr
    for one in found[1:]:
        assert one.strand_scores == pytest.approx(found[0].strand_scores, abs=1e-5)


def test_what_still_leaves_a_circle(model: SequenceModel, make_genome) -> None:
    circle = make_genome({"M": LETTERS}, circular=["M"])
    once_around = LETTERS[-1] + LETTERS[:-1]
    cases = [
        (Allele("M", 0, "A", "C"), "OUT_OF_CONTIG"),
        (Allele("M", len(LETTERS) + 1, "A", "C"), "OUT_OF_CONTIG"),
        (Allele("M", len(LETTERS), once_around + "A", once_around + "C"), "OUT_OF_CONTIG"),
        (Allele("M", len(LETTERS), once_around, "C" + once_around[1:]), "OK"),
        (Allele("M", len(LETTERS), "AT", "A"), "REF_MISMATCH"),
        (Allele("M", 1, "A", "A" + "ACGTACGTA"), "TOO_LONG"),
    ]
    found = score(model, circle, [allele for allele, _ in cases], context=CONTEXT)
    assert [str(one.status) for one in found] == [word for _, word in cases]


def test_a_circle_shorter_than_the_context_is_its_own_context(model: SequenceModel, make_genome) -> None:
    """An eighth of the circle is what is too long then, and a score is that of the context that fits once around."""
    circle = make_genome({"M": LETTERS}, circular=["M"])
    around = len(LETTERS) // 4 * 4
    one = Allele("M", 50, LETTERS[49], "ACGT"[("ACGT".index(LETTERS[49]) + 1) % 4])
    long = Allele("M", 50, LETTERS[49], LETTERS[49] + "ACGTTGCATTACCAGT"[: around // 8 + 1])
    [wide], [fits] = (list(score(model, circle, [one], context=c, horizon=20)) for c in (8192, around))
    assert wide.llr == fits.llr
    assert [str(found.status) for found in score(model, circle, [long], context=8192)] == ["TOO_LONG"]

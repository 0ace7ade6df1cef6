"""The map of a region is the scores of its substitutions, and nothing else."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import genossm.genome
from genossm.core.errors import ContigNotFoundError, IntervalError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import Interval, Variant, reverse_complement
from genossm.testing.models import enliven
from genossm.variants import Saturation, saturation, score

CONTEXT = 64
REGION = Interval("20", 5_000, 5_030)


@pytest.fixture(scope="module")
def masked_model() -> SequenceModel:
    config = StackConfig(
        d_model=8, n_layer=2, direction="bidirectional", reverse_complement="equivariant", objective="masked"
    )
    return enliven(SequenceModel(config)).eval()


def test_each_entry_is_the_score_of_its_substitution(model: SequenceModel, human_genome: Genome) -> None:
    found = saturation(model, human_genome, REGION, context=CONTEXT)
    assert found.letters == human_genome.fetch(REGION).decode()
    assert found.pos1.tolist() == list(range(5_001, 5_031))
    assert found.scores.shape == (30, 4)
    for row, ref in enumerate(found.letters):
        for column, alt in enumerate("ACGT"):
            if alt == ref:
                assert found.scores[row, column] == 0
                continue
            [alone] = score(model, human_genome, [Variant("20", 5_001 + row, ref, alt)], context=CONTEXT)
            assert found.scores[row, column] == pytest.approx(alone.llr, abs=1e-4)


def test_strands_are_kept_and_averaged(model: SequenceModel, human_genome: Genome) -> None:
    both = saturation(model, human_genome, REGION, context=CONTEXT, both_strands=True)
    one = saturation(model, human_genome, REGION, context=CONTEXT)
    assert both.strand_scores.shape == (2, 30, 4)
    np.testing.assert_allclose(both.strand_scores[0], one.scores, atol=1e-4)
    np.testing.assert_allclose(both.scores, both.strand_scores.mean(axis=0))
    assert np.abs(both.strand_scores[0] - both.strand_scores[1]).max() > 0.01


def test_options_reach_the_scores(model: SequenceModel, human_genome: Genome) -> None:
    near = saturation(model, human_genome, REGION, context=CONTEXT, horizon=1, batch_size=3)
    far = saturation(model, human_genome, REGION, context=CONTEXT, horizon=16)
    assert np.abs(near.scores - far.scores).max() > 0.01
    [alone] = score(model, human_genome, [variant_at(near, 7)], context=CONTEXT, horizon=1)
    assert near.scores[7]["ACGT".index(variant_at(near, 7).alt)] == pytest.approx(alone.llr, abs=1e-4)


def variant_at(found: Saturation, row: int) -> Variant:
    ref = found.letters[row]
    return Variant("20", int(found.pos1[row]), ref, "A" if ref != "A" else "C")


def test_minus_strand_shows_the_same_scores_from_the_other_side(model: SequenceModel, human_genome: Genome) -> None:
    plus = saturation(model, human_genome, REGION, context=CONTEXT, both_strands=True)
    minus_region = Interval("20", REGION.start, REGION.end, "-")
    minus = saturation(model, human_genome, minus_region, context=CONTEXT, both_strands=True)
    assert minus.interval == minus_region
    assert minus.letters == reverse_complement(plus.letters) == human_genome.fetch(minus_region).decode()
    assert minus.pos1.tolist() == plus.pos1.tolist()[::-1]
    for row, column in ((0, 0), (3, 2), (29, 1)):
        assert minus.scores[row, column] == plus.scores[29 - row, 3 - column]
        assert (minus.strand_scores[:, row, column] == plus.strand_scores[:, 29 - row, 3 - column]).all()
    again = minus.reverse_complement()
    assert again.interval == REGION
    assert again.letters == plus.letters
    np.testing.assert_array_equal(again.scores, plus.scores)


def test_a_sequence_and_its_reverse_complement_swap_their_strands(
    model: SequenceModel, human_slice: bytes, make_genome: Callable[..., Genome]
) -> None:
    """What a causal model finds on the minus strand is what it finds on the plus strand of the other sequence."""
    letters = human_slice[:CONTEXT]
    inside = Interval("x", 20, 40)
    other = Interval("x", CONTEXT - 40, CONTEXT - 20)
    here = saturation(model, make_genome({"x": letters}), inside, context=CONTEXT, both_strands=True)
    turned = make_genome({"x": reverse_complement(letters)})
    there = saturation(model, turned, other, context=CONTEXT, both_strands=True).reverse_complement()
    np.testing.assert_allclose(here.strand_scores, there.strand_scores[::-1], atol=1e-4)


def test_equivariant_model_gives_both_strands_alike(masked_model: SequenceModel, human_genome: Genome) -> None:
    found = saturation(masked_model, human_genome, REGION, context=CONTEXT)
    np.testing.assert_array_equal(found.strand_scores[0], found.strand_scores[-1])
    [alone] = score(masked_model, human_genome, [variant_at(found, 4)], context=CONTEXT)
    assert found.scores[4]["ACGT".index(variant_at(found, 4).alt)] == pytest.approx(alone.llr, abs=1e-4)


def test_letters_that_are_no_bases_have_no_scores(model: SequenceModel, make_genome: Callable[..., Genome]) -> None:
    genome = make_genome({"x": "ACGTNRACGTACGTACGTAC"})
    found = saturation(model, genome, Interval("x", 2, 8), context=8)
    assert found.letters == "GTNRAC"
    assert np.isnan(found.scores).tolist() == [[letter in "NR"] * 4 for letter in "GTNRAC"]
    importance = found.importance()
    assert not importance[2:4].any()
    assert math.isclose(importance[0, 2], -found.scores[0].sum() / 3)
    assert np.count_nonzero(importance[0]) == 1


def test_a_region_without_bases_is_all_unknown(model: SequenceModel, make_genome: Callable[..., Genome]) -> None:
    found = saturation(model, make_genome({"x": "N" * 20}), Interval("x", 2, 5), context=8)
    assert np.isnan(found.scores).all()
    assert found.strand_scores.shape == (1, 3, 4)


def test_a_circular_contig_is_read_across_its_joint(model: SequenceModel, make_genome: Callable[..., Genome]) -> None:
    genome = make_genome({"x": "ACGTTGCAACGTGTCA"}, circular=["x"])
    found = saturation(model, genome, Interval("x", 14, 18), context=8)
    assert (found.letters, found.pos1.tolist()) == ("CAAC", [15, 16, 1, 2])
    [alone] = score(model, genome, [Variant("x", 2, "C", "T")], context=8)
    assert found.scores[3, 3] == pytest.approx(alone.llr, abs=1e-4)


def test_regions_that_are_not_there(model: SequenceModel, human_genome: Genome) -> None:
    with pytest.raises(ContigNotFoundError):
        saturation(model, human_genome, Interval("21", 0, 10))
    with pytest.raises(IntervalError, match="leaves contig"):
        saturation(model, human_genome, Interval("20", 99_990, 100_001))


def test_the_documented_example_runs(model: SequenceModel, human_fasta: Path) -> None:
    with genossm.genome.open(human_fasta) as genome:
        names = {"model": model, "genome": genome, "saturation": saturation, "Interval": Interval}
        [example] = doctest.DocTestFinder(recurse=False).find(saturation, "saturation", globs=names)
        assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=1)


def test_a_region_is_read_and_swapped_arguments_are_refused(model: SequenceModel, human_genome: Genome) -> None:
    found = saturation(model, human_genome, "20:5,001-5,004", context=CONTEXT)
    assert found.interval == Interval("20", 5_000, 5_004)
    wanted = saturation(model, human_genome, found.interval, context=CONTEXT)
    assert (found.scores == wanted.scores).all()
    with pytest.raises(UsageError, match="saturation got the genome first"):
        saturation(human_genome, model, REGION)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no interval"):
        saturation(model, human_genome, ("20", 5_000, 5_004), context=CONTEXT)  # type: ignore[arg-type]

"""Neighbourhoods that start from a reference's states against whole windows, and their measured error."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.testing.models import enliven
from genossm.variants import ScoredAllele, ScoringOptions, Status, neighbourhood, score
from genossm.variants.probes import Haplotype, Probe
from genossm.variants.scorer import Scorer

# Two ways to the same score agree to 1e-3 nats per 1,024 summed letters; at most 32 are summed here.
TOLERANCE = 32 * 1e-3 / 1024
OPTIONS = {"context": 2048, "neighbourhood": 16}


def build(*, layers: int, equivariant: bool = False, slow: bool = False) -> SequenceModel:
    """slow: what is read stays in memory for hundreds of bases."""
    choices = {"reverse_complement": "equivariant"} if equivariant else {}
    both = {"direction": "bidirectional", "objective": "masked", **choices}
    model = enliven(SequenceModel(StackConfig(12, layers, **both))).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if slow and name.endswith("dt_proj.bias"):
                parameter.sub_(2.5)
    return model


def at_the_edge(genome: Genome, count: int) -> list[Variant]:
    """Substitutions one base behind a place of the grid, where the narrowest neighbourhood begins."""
    variants = []
    for start0 in range(20_480 + 1, 20_480 + 256 * count, 256):
        ref = chr(genome.reader("20")(start0, start0 + 1)[0])
        variants.append(Variant("20", start0 + 1, ref, "A" if ref != "A" else "C"))
    return variants


def ratios(model: SequenceModel, genome: Genome, wanted: list[Variant], **options: object) -> np.ndarray:
    scored = list(score(model, genome, wanted, **{**OPTIONS, **options}))  # type: ignore[call-overload]
    assert all(one.status is Status.OK for one in scored)
    return np.array([one.strand_scores for one in scored])


def near_and_far(human_variants: tuple[list[Variant], list[Variant]]) -> list[Variant]:
    substitutions, others = human_variants
    # The first ones stand where the contig cuts their windows short.
    return [*substitutions[:3], *substitutions[90:95], *others[:2]]


@pytest.mark.parametrize("equivariant", [False, True])
def test_nothing_is_left_out_in_one_layer(equivariant: bool, human_genome: Genome, human_variants) -> None:
    """What a change does outside of a neighbourhood could come back only through a second layer."""
    model = build(layers=1, equivariant=equivariant)
    chosen = near_and_far(human_variants)
    options = {"both_strands": True}
    found = ratios(model, human_genome, chosen, **options)
    np.testing.assert_allclose(found, ratios(model, human_genome, chosen, exact=True, **options), atol=TOLERANCE)
    # Not all are nothing; some alleles of a model of random weights are near 0.
    assert np.median(np.abs(found)) > 1000 * TOLERANCE


def test_ends_repeats_codes_and_long_alleles(make_genome) -> None:
    model = build(layers=1)
    middle = "NNNNACGTRRGGTANNNMCAAMAAATTYGCATTACGNNACGTTG"
    letters = random_sequence(900, seed=4).decode() + middle + random_sequence(900, seed=5).decode() + "AG" * 40
    texts = ("1:1:{}>T", "1:3:{}>{}ACG", "1:905:A>C", "1:909:AAG>CTA", "1:1900:{}>{}AG")
    chosen = []
    for text in texts:
        _, pos1, change = text.split(":")
        here = letters[int(pos1) - 1]
        chosen.append(Variant("1", int(pos1), *change.format(here, here).split(">")))
    chosen.append(Variant("1", 1001, letters[1000:1180], letters[1000]))
    chosen = [one for one in chosen if one.ref != one.alt]
    for circular in ([], ["1"]):
        genome = make_genome({"1": letters}, circular=circular)
        found = ratios(model, genome, chosen, context=1536, both_strands=True)
        whole = ratios(model, genome, chosen, context=1536, both_strands=True, exact=True)
        np.testing.assert_allclose(found, whole, atol=TOLERANCE)


def test_wider_is_closer(human_genome: Genome) -> None:
    model, chosen = build(layers=3, slow=True), at_the_edge(human_genome, 6)
    whole = ratios(model, human_genome, chosen, exact=True)
    errors = [np.abs(ratios(model, human_genome, chosen, neighbourhood=w) - whole).max() for w in (1, 20, 127)]
    assert errors[0] > 10 * errors[1]


def test_neither_order_nor_company_nor_batches_matter(
    human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, chosen = build(layers=2, equivariant=True), near_and_far(human_variants)
    together = ratios(model, human_genome, chosen)
    alone = np.concatenate([ratios(model, human_genome, [one]) for one in chosen[::3]])
    np.testing.assert_allclose(alone, together[::3], atol=TOLERANCE)
    # So little memory for states that the reference is read again for every neighbourhood.
    monkeypatch.setattr(neighbourhood, "_STATE_BYTES", {"cpu": 1})
    order = random.Random(1).sample(range(len(chosen)), len(chosen))
    shuffled = ratios(model, human_genome, [chosen[i] for i in order], batch_size=3)
    np.testing.assert_allclose(shuffled, together[order], atol=TOLERANCE)


def test_a_neighbourhood_is_as_wide_as_it_says() -> None:
    plain = Haplotype("1", 0, 4096)
    assert neighbourhood.stretch_around(Probe(plain, "+", 1000, 1001), 16) == (768, 1024)
    assert neighbourhood.stretch_around(Probe(plain, "+", 1015, 1016), 16) == (768, 1280)
    inserted = Haplotype("1", 0, 4096, 1000, 1000, b"ACGT" * 100)
    # Behind an insertion of 400 letters, letter 1,405 is the reference's 1,005.
    assert neighbourhood.stretch_around(Probe(inserted, "+", 1405, 1406), 16) == (768, 1024)
    deleted = Haplotype("1", 0, 4096, 1000, 1500, b"")
    assert neighbourhood.stretch_around(Probe(deleted, "+", 990, 991), 16) == (768, 1536)
    assert neighbourhood.stretch_around(Probe(plain, "+", 3, 4), 16) == (0, 256)
    assert neighbourhood.stretch_around(Probe(Haplotype("1", 0, 4000), "+", 3990, 3991), 16) == (3840, 4000)


def score_all(scorer: Scorer, wanted: list[Variant]) -> list[ScoredAllele]:
    return scorer.score([scorer.locate(one) for one in wanted])


def test_the_error_is_measured_on_alleles_of_the_run(human_genome: Genome) -> None:
    torch.manual_seed(0)  # how much is left out depends on the weights: by some random ones next to nothing
    model = build(layers=3, slow=True)
    options = ScoringOptions(2048, neighbourhood=1, both_strands=True)
    [one] = chosen = at_the_edge(human_genome, 1)
    scorer = Scorer(model, human_genome, options)
    [found] = score_all(scorer, chosen)
    full = ratios(model, human_genome, [one], exact=True, both_strands=True).mean()
    measured = scorer.measured["mlm"]
    assert (measured["neighbourhood"], measured["alleles"], measured["substitutions"]) == (1, 1, 1)
    assert found.llr is not None
    assert measured["max_abs"] == measured["mean_abs"] == pytest.approx(abs(found.llr - full), abs=TOLERANCE)
    assert float(measured["max_abs"]) > 10 * TOLERANCE


def test_what_is_measured_does_not_depend_on_order_and_stays_within_its_budget(
    human_genome: Genome, human_variants
) -> None:
    model, chosen = build(layers=2), human_variants[0][200:260]
    reports, tokens = [], []
    for order in (chosen, chosen[::-1]):
        scorer = Scorer(model, human_genome, ScoringOptions(2048, neighbourhood=16))
        score_all(scorer, order)
        reports.append(scorer.measured["mlm"])
    first, second = reports
    assert first["alleles"] == second["alleles"] == pytest.approx(60 * 512 / 8 / 2048, abs=2)
    assert first["max_abs"] == pytest.approx(second["max_abs"], abs=TOLERANCE)
    scorer = Scorer(model, human_genome, ScoringOptions(2048, neighbourhood=16))
    for start in range(0, 60, 2):
        score_all(scorer, chosen[start : start + 2])
        tokens.append(scorer.measured["mlm"]["alleles"])
    assert tokens[0] == 1
    assert tokens[-1] < 30


def test_short_windows_and_exact_runs_have_no_neighbourhoods(human_genome: Genome) -> None:
    model = build(layers=1)
    for options in (ScoringOptions(), ScoringOptions(2048, neighbourhood=16, exact=True), ScoringOptions(512)):
        scorer = Scorer(model, human_genome, options)
        assert not scorer.options.has_neighbourhood
        assert scorer.measured == {}
        assert "neighbourhood" not in scorer.options.as_dict()
    scorer = Scorer(model, human_genome, ScoringOptions(16_384))
    assert scorer.options.as_dict()["neighbourhood"] == 1024

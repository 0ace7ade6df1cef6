"""Hidden states of neighbourhoods that start from a reference's states against those of whole windows."""

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
from genossm.variants import ScoringOptions, neighbourhood, score
from genossm.variants.extras import Extras, head_settings
from genossm.variants.heads.estimators import Linear
from genossm.variants.heads.features import FeatureSpec, PairMeans
from genossm.variants.heads.head import VariantHead
from genossm.variants.hidden_means import HiddenMeans
from genossm.variants.locate import Locator
from genossm.variants.probes import haplotype_pair
from genossm.variants.scorer import Scorer

# As in test_embedding.py.
TOLERANCE = 2e-6
CONTEXT = 8192
BOTH_WAYS = {"direction": "bidirectional", "objective": "masked"}
KINDS = {"causal": {}, "masked": BOTH_WAYS, "equivariant": {**BOTH_WAYS, "reverse_complement": "equivariant"}}


def build(kind: str, *, layers: int) -> SequenceModel:
    torch.manual_seed(5)
    return enliven(SequenceModel(StackConfig(12, layers, **KINDS[kind]))).eval()  # type: ignore[arg-type]


def distances(model: SequenceModel, genome: Genome, wanted: list[Variant], **options: object) -> np.ndarray:
    usual = {"methods": "embedding", "context": CONTEXT, "neighbourhood": 16, "both_strands": True}
    found = list(score(model, genome, wanted, **{**usual, **options}))  # type: ignore[call-overload]
    return np.array([one.numbers for one in found])


def near_and_far(human_variants: tuple[list[Variant], list[Variant]]) -> list[Variant]:
    """Substitutions, insertions, deletions; the first stand where the contig cuts their windows short."""
    substitutions, others = human_variants
    return [*substitutions[:2], *substitutions[90:93], *others[:2]]


@pytest.mark.parametrize(("kind", "layers"), [("causal", 3), ("masked", 1), ("equivariant", 1)])
def test_around_the_allele_nothing_is_left_out(kind: str, layers: int, human_genome: Genome, human_variants) -> None:
    """Of a causal model; and of one layer, where what a change does outside could come back only through a second."""
    model, chosen = build(kind, layers=layers), near_and_far(human_variants)
    found, whole = (distances(model, human_genome, chosen, exact=exact) for exact in (False, True))
    np.testing.assert_allclose(found[:, :2], whole[:, :2], atol=TOLERANCE)
    assert np.median(whole[:, 0]) > 100 * TOLERANCE
    # What is outside of it is missing in the mean over the window, and little.
    assert np.abs(found[:, 2] - whole[:, 2]).max() < 0.1 * whole[:, 2].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbourhood_of_nearly_all_of_a_window_gives_its_mean(kind: str, human_genome: Genome) -> None:
    """Read from the states and sums of the reference, both ends included, against the window run whole."""
    model = build(kind, layers=2)
    locator = Locator(human_genome, ScoringOptions(CONTEXT))
    start0 = 20_480 + 4100
    ref = chr(human_genome.reader("20")(start0, start0 + 1)[0])
    alts = "ACGT"["ACGT".index(ref) - 1], ref + "AC"
    located = [locator.locate(Variant("20", start0 + 1, ref, alt)) for alt in alts]
    pairs = [haplotype_pair(one.placement, CONTEXT, locator.letters) for one in located if one.placement]
    asked = [(((0, len(pair.reference)),), ((0, len(pair.alternative)),)) for pair in pairs]

    class Always(ScoringOptions):
        def splits(self, window: int, flank: int = 0) -> bool:  # noqa: ARG002
            return True

    options = Always(CONTEXT, neighbourhood=3800)
    for strand in ("+", "-"):
        means = HiddenMeans(model, locator.letters, options, 0)
        near = means.means(pairs, asked, strand)
        whole = means.means(pairs, asked, strand, whole=True)
        for (a, b), (ref_mean, alt_mean) in zip(near, whole, strict=True):
            np.testing.assert_allclose(a, ref_mean, atol=TOLERANCE)
            np.testing.assert_allclose(b, alt_mean, atol=TOLERANCE)
            assert np.abs(alt_mean - ref_mean).max() > 10 * TOLERANCE


def test_ends_repeats_codes_and_circular_contigs(make_genome) -> None:
    model = build("causal", layers=2)
    middle = "NNNNACGTRRGGTANNNMCAAMAAATTYGCATTACGNNACGTTG"
    letters = random_sequence(4900, seed=4).decode() + middle + random_sequence(4500, seed=5).decode() + "AG" * 40
    end = len(letters)
    chosen = [
        Variant("1", 1, letters[0], "A" if letters[0] != "A" else "C"),
        Variant("1", 4905, "A", "C"),
        Variant("1", 4909, "AAG", "CTA"),
        Variant("1", 5000, letters[4999:5100], letters[4999]),
        Variant("1", end - 80, letters[end - 81], letters[end - 81] + "AG"),
        Variant("1", end, letters[-1], "T"),
    ]
    for circular in ([], ["1"]):
        genome = make_genome({"1": letters}, circular=circular)
        found, whole = (distances(model, genome, chosen, context=None, exact=exact) for exact in (False, True))
        np.testing.assert_allclose(found[:, :2], whole[:, :2], atol=TOLERANCE)


def test_wider_is_closer(human_genome: Genome, human_variants) -> None:
    model, chosen = build("masked", layers=3), near_and_far(human_variants)[2:5]
    whole = distances(model, human_genome, chosen, context=16_384, exact=True)
    narrow, wide = (distances(model, human_genome, chosen, context=16_384, neighbourhood=w) for w in (16, 1800))
    assert np.abs(narrow - whole).max(axis=0)[2] > 2 * np.abs(wide - whole).max(axis=0)[2]


@pytest.mark.parametrize("kind", ["causal", "equivariant"])
def test_neither_order_nor_company_nor_batches_matter(
    kind: str, human_genome: Genome, human_variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, chosen = build(kind, layers=2), near_and_far(human_variants)
    together = distances(model, human_genome, chosen)
    [alone] = distances(model, human_genome, chosen[3:4])
    np.testing.assert_allclose(alone, together[3], atol=TOLERANCE)
    # So little memory for states that the reference is read again for every neighbourhood.
    monkeypatch.setattr(neighbourhood, "_STATE_BYTES", {"cpu": 1})
    order = random.Random(1).sample(range(len(chosen)), len(chosen))
    shuffled = distances(model, human_genome, [chosen[i] for i in order], batch_size=3)
    np.testing.assert_allclose(shuffled, together[order], atol=TOLERANCE)


def test_the_error_is_measured_on_alleles_of_the_run(human_genome: Genome, human_variants) -> None:
    model, chosen = build("masked", layers=2), near_and_far(human_variants)[2:3]
    options = ScoringOptions(CONTEXT, methods=("embedding",), neighbourhood=16)
    scorer = Scorer(model, human_genome, options)
    [found] = scorer.score([scorer.locate(one) for one in chosen])
    [whole] = distances(model, human_genome, chosen, both_strands=False, exact=True)
    measured = scorer.measured["embedding"]
    assert (measured["neighbourhood"], measured["alleles"], measured["substitutions"]) == (768, 1, 1)
    for number, field in enumerate(("L2", "COS", "WINDOW_L2", "WINDOW_COS")):
        difference = abs(found.numbers[number] - whole[number])  # type: ignore[operator]
        assert measured[f"GENOSSM_EMB_{field}"]["max_abs"] == pytest.approx(difference, abs=1e-9)
    assert measured["GENOSSM_EMB_WINDOW_L2"]["max_abs"] > 2e-9


def test_a_window_is_read_once_and_its_alleles_near_what_they_change(human_genome: Genome) -> None:
    model = build("causal", layers=1)
    locator = Locator(human_genome, ScoringOptions(CONTEXT))
    letters = human_genome.reader("20")(22_600, 22_640).decode()
    chosen = [Variant("20", 22_601 + i, one, "A" if one != "A" else "C") for i, one in enumerate(letters)]
    placements = [one.placement for one in map(locator.locate, chosen) if one.placement]
    features = PairMeans(model, locator.letters, ScoringOptions(CONTEXT, neighbourhood=64))
    near = features.values(placements, 8)
    # REF and ALT of each, in stretches of one or two places of the grid on either side, most of them shared.
    assert features.tokens < CONTEXT + 2 * 40 * 768
    whole = features.values(placements, 8, whole=True)
    for a, b in zip(near, whole):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_heads_see_neighbourhoods_and_what_that_leaves_out_is_measured(
    kind: str, human_genome: Genome, human_variants
) -> None:
    model, chosen = build(kind, layers=2), near_and_far(human_variants)[2:]
    found: list[np.ndarray] = []
    for exact in (False, True):
        options = ScoringOptions(CONTEXT, neighbourhood=64, heads=("mine",), exact=exact)
        named = options.of_model(model.objective, equivariant=False)
        rng = np.random.default_rng(2)
        width = 2 + 2 + 2 * model.config.d_model
        linear = Linear("ridge", np.zeros(width), np.ones(width), rng.normal(size=width), 0.1, 1.0)
        head = VariantHead("mine", linear, FeatureSpec(flank=8), (), head_settings(model, named), "made up", {})
        scorer = Scorer(model, human_genome, options, extras=Extras(heads=(head,)))
        scored = scorer.score([scorer.locate(one) for one in chosen])
        found.append(np.array([one.numbers[1] for one in scored]))
        if exact or kind == "causal":
            # Of a causal model nothing is left out.
            assert "heads" not in scorer.measured
            continue
        measured = scorer.measured["heads"]
        assert (measured["against"], measured["alleles"] > 0) == ("whole windows", True)
        assert 0 < measured["GENOSSM_MINE"]["max_abs"] < 1e-3
    np.testing.assert_allclose(found[0], found[1], atol=1e-3 if kind == "masked" else 2e-4)
    assert np.ptp(found[1]) > 0.05

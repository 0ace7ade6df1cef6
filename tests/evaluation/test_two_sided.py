"""Two-sided Markov models against counting by hand, and the laws of what they may look at."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.evaluation import two_sided
from genossm.evaluation.markov import base_codes, count_contexts, reverse_complement_codes
from genossm.evaluation.two_sided import (
    MAX_GAPS,
    TwoSidedMarkov,
    count_both_strands,
    fit_two_sided,
    tune_two_sided,
)
from genossm.sequence import reverse_complement

bases = st.text(alphabet="ACGT", min_size=1, max_size=40)
sequences = st.text(alphabet="ACGTN", min_size=1, max_size=40)


def stretches(train: str, context: dict[int, str], base: str) -> int:
    """How many stretches of known bases of `train` hold `base` and, at these offsets from it, the context."""
    first, last = min(0, *context, 0), max(0, *context, 0)
    found = 0
    for place in range(-first, len(train) - last):
        window = train[place + first : place + last + 1]
        matches = all(train[place + offset] == letter for offset, letter in context.items())
        found += "N" not in window and train[place] == base and matches
    return found


def ladder(judged: str, place: int, order: int, signs: tuple[int, int]) -> list[dict[int, str]]:
    """The contexts that the definition climbs through, shortest first."""
    contexts: list[dict[int, str]] = [{}]
    for distance in range(1, order + 1):
        for sign in signs:
            at = place + sign * distance
            if not 0 <= at < len(judged) or judged[at] == "N":
                continue
            context = {**contexts[-1], sign * distance: judged[at]}
            span = max(0, *context) - min(0, *context)
            if len(contexts) > order or span > order or span - len(context) > MAX_GAPS:
                return contexts
            contexts.append(context)
    return contexts


def by_hand(train: list[str], judged: str, place: int, strengths: tuple[float, ...]) -> list[float]:
    """The definition in the module's text, one stretch at a time."""
    mean = np.zeros(4)
    for signs in ((-1, 1), (1, -1)):
        p = np.full(4, 0.25)
        for context, strength in zip(ladder(judged, place, len(strengths) - 1, signs), strengths):
            counts = np.array([sum(stretches(text, context, base) for text in train) for base in "ACGT"])
            p = (counts + strength * p) / (counts.sum() + strength)
        mean += p / 2
    return mean.tolist()


@settings(deadline=None, max_examples=40)
@given(train=sequences, judged=sequences, order=st.integers(0, 4), strength=st.floats(0.1, 50), data=st.data())
def test_probabilities_are_those_of_counting_by_hand(
    train: str, judged: str, order: int, strength: float, data: st.DataObject
) -> None:
    strengths = tuple(strength * (t + 1) for t in range(order + 1))
    model = TwoSidedMarkov(count_contexts([base_codes(train)], order), strengths)
    place = data.draw(st.integers(0, len(judged) - 1))
    found = np.exp(model.log_probabilities_at(base_codes(judged), np.array([place])))[0]
    np.testing.assert_allclose(found, by_hand([train], judged, place, strengths), rtol=1e-12)


def test_gaps_are_summed_over_and_their_number_is_bounded() -> None:
    rng = np.random.default_rng(0)
    train = "".join(rng.choice(list("ACGT"), 3000, p=[0.4, 0.1, 0.2, 0.3]))
    strengths = (1.0,) * 7
    model = TwoSidedMarkov(count_contexts([base_codes(train)], 6), strengths)
    for judged in ("ACGTNTACG", "ANGTTTNCG", "ACNNTNNCG", "NNNATNNNA", "ACGTTNNNA", "NNNNTNNNN"):
        found = np.exp(model.log_probabilities_at(base_codes(judged), np.array([4])))[0]
        np.testing.assert_allclose(found, by_hand([train], judged, 4, strengths), rtol=1e-12)
    # One gap more than may be summed over ends the ladder: what lies beyond it is not read.
    beyond = [
        np.exp(model.log_probabilities_at(base_codes(f"NNNNT{'N' * (MAX_GAPS + 1)}{x}"), np.array([4]))) for x in "ACGT"
    ]
    assert all(np.array_equal(p, beyond[0]) for p in beyond)


@settings(deadline=None, max_examples=30)
@given(train=bases, judged=sequences, order=st.integers(0, 5), data=st.data())
def test_the_base_itself_and_what_lies_beyond_the_order_are_never_looked_at(
    train: str, judged: str, order: int, data: st.DataObject
) -> None:
    model = TwoSidedMarkov(count_both_strands([base_codes(train)], order), (0.5,) * (order + 1))
    place = data.draw(st.integers(0, len(judged) - 1))
    codes = base_codes(judged)
    expected = model.log_probabilities_at(codes, np.array([place]))
    np.testing.assert_allclose(np.exp(expected).sum(), 1.0, atol=1e-12)
    changed = codes.copy()
    distance = np.abs(np.arange(len(codes)) - place)
    free = (distance == 0) | (distance > order)
    changed[free] = data.draw(st.lists(st.integers(0, 4), min_size=int(free.sum()), max_size=int(free.sum())))
    np.testing.assert_array_equal(model.log_probabilities_at(changed, np.array([place])), expected)


@settings(deadline=None, max_examples=30)
@given(train=sequences, judged=sequences, order=st.integers(0, 5))
def test_the_other_strand_has_the_complementary_probabilities(train: str, judged: str, order: int) -> None:
    model = TwoSidedMarkov(count_both_strands([base_codes(train)], order), (0.5,) * (order + 1))
    places = np.arange(len(judged))
    plus = model.log_probabilities_at(base_codes(judged), places)
    minus = model.log_probabilities_at(base_codes(reverse_complement(judged)), places)
    np.testing.assert_allclose(minus[::-1, ::-1], plus, atol=1e-12)


def test_places_asked_in_pieces_or_any_order_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    train, judged = (rng.choice(5, n, p=[0.3, 0.2, 0.2, 0.2, 0.1]).astype(np.uint8) for n in (3000, 400))
    model = TwoSidedMarkov(count_both_strands([train], 5), (1.0,) * 6)
    places = rng.permutation(400)
    whole = model.log_probabilities_at(judged, places)
    monkeypatch.setattr(two_sided, "_CHUNK", 7)
    np.testing.assert_array_equal(model.log_probabilities_at(judged, places), whole)
    one_by_one = [model.log_probabilities_at(judged, np.array([place]))[0] for place in places[:20]]
    np.testing.assert_array_equal(np.stack(one_by_one), whole[:20])
    assert model.log_probabilities_at(judged, np.array([], np.int64)).shape == (0, 4)


@pytest.mark.parametrize("place", [-1, 4])
def test_a_place_outside_the_sequence_is_refused(place: int) -> None:
    model = TwoSidedMarkov(count_contexts([base_codes("ACGT")], 1), (1.0, 1.0))
    with pytest.raises(IndexError, match="4 bases"):
        model.log_probabilities_at(base_codes("ACGT"), np.array([place]))


def two_sided_source(length: int, seed: int) -> np.ndarray:
    """Every third base is a function of both neighbours, which are random: only both flanks together foretell it."""
    codes = np.random.default_rng(seed).integers(0, 4, length).astype(np.uint8)
    codes[1:-1:3] = (codes[:-2:3] + codes[2::3][: len(codes[1:-1:3])]) % 4
    return codes


def test_both_flanks_foretell_what_one_does_not() -> None:
    train, validation, test = (two_sided_source(n, seed) for seed, n in enumerate((30_001, 6001, 6001)))
    # Counting both strands halves the signal: the complement of a sum is not the sum of the complements.
    models = tune_two_sided(count_contexts([train], 2), [validation], [1, 2])
    places = np.arange(1, len(test) - 1, 3)
    bits = {
        order: -model.log_probabilities_at(test, places)[np.arange(len(places)), test[places]].mean() / math.log(2)
        for order, model in models.items()
    }
    assert bits[1] > 1.9
    # Two of three places with the same neighbours are random: the table says 1/3 + 2/3 * 1/4 for the right base.
    assert bits[2] == pytest.approx(-math.log2(1 / 3 + 1 / 6), abs=0.03)


def test_tuning_never_loses_to_a_fixed_strength_on_what_it_is_tuned_for() -> None:
    rng = np.random.default_rng(4)
    train, validation = two_sided_source(6001, 7), two_sided_source(3001, 8)
    counts = count_both_strands([train], 3)
    hidden = rng.random(len(validation)) < 0.15
    places = np.flatnonzero(hidden)
    for masked in (None, [hidden]):
        model = tune_two_sided(counts, [validation], [3], masked=masked)[3]
        read = validation if masked is None else np.where(hidden, 4, validation).astype(np.uint8)
        at = np.arange(len(validation)) if masked is None else places

        def nats(candidate: TwoSidedMarkov, read: np.ndarray = read, at: np.ndarray = at) -> float:
            """The objective: both readings on their own, not their mean."""
            readings = (candidate._probabilities(read, at, flank) for flank in ("left", "right"))
            return -sum(float(np.log(p[np.arange(len(at)), validation[at]]).sum()) for p in readings)

        for strength in (0.25, 1.0, 4.0, 64.0):
            assert nats(model) <= nats(TwoSidedMarkov(counts, (strength,) * 4)) + 1e-6


def test_fitting_counts_both_strands_and_names_its_orders() -> None:
    codes = two_sided_source(3001, 3)
    models = fit_two_sided([codes], [two_sided_source(901, 4)], [4, 2, 2])
    assert [(order, model.order, model.name) for order, model in models.items()] == [
        (2, 2, "two-sided order 2"),
        (4, 4, "two-sided order 4"),
    ]
    expected = count_contexts([codes, reverse_complement_codes(codes)], 4)
    np.testing.assert_array_equal(models[4].counts.tables[4], expected.tables[4])
    assert fit_two_sided([codes], [codes], []) == {}


@pytest.mark.parametrize(
    ("train", "validation", "order", "message"),
    [("NNN", "ACGT", 1, "training sequence"), ("ACGT", "NNN", 1, "validation sequence"), ("ACGT", "ACGT", 13, "0..12")],
)
def test_what_cannot_be_fitted_is_refused(train: str, validation: str, order: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_two_sided([base_codes(train)], [base_codes(validation)], [order])


def test_a_mask_without_a_known_base_is_refused() -> None:
    counts = count_both_strands([base_codes("ACGT")], 1)
    with pytest.raises(ValueError, match="to predict"):
        tune_two_sided(counts, [base_codes("ACGT")], [1], masked=[np.zeros(4, bool)])


def test_every_filling_of_a_gap_is_counted_once() -> None:
    weights = [64, 4]
    expected = sorted(64 * a + 4 * b for a, b in product(range(4), repeat=2))
    assert sorted(two_sided._fillings(weights).tolist()) == expected

"""Markov models against counting by hand, and the laws of probability."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.evaluation.markov import (
    ContextCounts,
    MarkovModel,
    base_codes,
    count_contexts,
    reverse_complement_codes,
)
from genossm.evaluation.markov_fit import fit_markov_models
from genossm.sequence import reverse_complement

sequences = st.text(alphabet="ACGTN", min_size=1, max_size=60)


def counted_by_hand(sequence: str, order: int) -> Counter[str]:
    words = (sequence[i : i + order + 1] for i in range(len(sequence) - order))
    return Counter(word for word in words if "N" not in word)


def code_of(context: str) -> int:
    return sum("ACGT".index(base) << (2 * back) for back, base in enumerate(reversed(context)))


def by_hand(sequence: str, strengths: tuple[float, ...], before: str, base: str) -> float:
    """The definition in the module's text, one word at a time."""
    p = 0.25
    for order, strength in enumerate(strengths):
        context = before[len(before) - order :]
        if len(before) < order or "N" in context:
            break
        counts = counted_by_hand(sequence, order)
        total = sum(counts[context + b] for b in "ACGT")
        p = (counts[context + base] + strength * p) / (total + strength)
    return p


@settings(deadline=None, max_examples=40)
@given(sequence=sequences, order=st.integers(0, 4))
def test_counts_are_those_of_a_sliding_word(sequence: str, order: int) -> None:
    table = count_contexts([base_codes(sequence)], order).tables[order]
    expected = counted_by_hand(sequence, order)
    assert table.sum() == sum(expected.values())
    for word, count in expected.items():
        assert table[code_of(word[:-1]), "ACGT".index(word[-1])] == count


def test_the_highest_order_counts_every_word() -> None:
    codes = base_codes("ACGTTGCAACGTTGCAACGTTGCAACGTTGCA")
    tables = count_contexts([codes], 12).tables
    assert tables[12].sum() == len(codes) - 12
    context, base = code_of("ACGTTGCAACGT"), "ACGT".index("T")
    assert tables[12][context, base] == 3
    # Each word of 13 continues a word of 12: summed over its first base it is that word's count, but for the start.
    shorter = tables[12].reshape(4, -1, 4).sum(axis=0)
    assert (tables[11] - shorter).sum() == 1


@settings(deadline=None, max_examples=40)
@given(train=sequences, judged=sequences, order=st.integers(0, 3), strength=st.floats(0.1, 50))
def test_probabilities_follow_the_definition(train: str, judged: str, order: int, strength: float) -> None:
    strengths = tuple(strength * (j + 1) for j in range(order + 1))
    model = MarkovModel(count_contexts([base_codes(train)], order), strengths)
    values = model.log_probabilities(base_codes(judged))
    for i, base in enumerate(judged):
        expected = 0.0 if base == "N" else math.log(by_hand(train, strengths, judged[:i], base))
        assert values[i] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(train=sequences, judged=sequences, order=st.integers(0, 4))
def test_distributions_sum_to_one_and_are_positive(train: str, judged: str, order: int) -> None:
    model = MarkovModel(count_contexts([base_codes(train)], order), (0.5,) * (order + 1))
    p = model.distributions(base_codes(judged))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert p.min() > 0


def test_a_long_sequence_scored_in_pieces_is_scored_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    train, judged = rng.integers(0, 4, 4000).astype(np.uint8), rng.integers(0, 5, 1000).astype(np.uint8)
    model = MarkovModel(count_contexts([train], 5), (1.0,) * 6)
    whole = model.log_probabilities(judged)
    monkeypatch.setattr("genossm.evaluation.markov._CHUNK", 37)
    np.testing.assert_allclose(model.log_probabilities(judged), whole, atol=1e-13)


@settings(deadline=None, max_examples=40)
@given(sequence=st.text(alphabet="ACGTNacgtn", max_size=40))
def test_codes_of_the_other_strand(sequence: str) -> None:
    np.testing.assert_array_equal(
        reverse_complement_codes(base_codes(sequence)), base_codes(reverse_complement(sequence))
    )


@settings(deadline=None, max_examples=30)
@given(data=st.data(), order=st.integers(0, 4))
def test_likelihood_ratio_is_the_difference_of_two_haplotypes(data: st.DataObject, order: int) -> None:
    bases = st.text(alphabet="ACGT", min_size=12, max_size=12)
    before, reference, alternative = (base_codes(data.draw(bases)) for _ in range(3))
    train = base_codes(data.draw(st.text(alphabet="ACGT", min_size=20, max_size=60)))
    model = MarkovModel(count_contexts([train], order), (1.0,) * (order + 1))
    ratio = model.log_likelihood_ratio(before, reference, alternative)
    whole = [model.log_probabilities(np.concatenate([before, tail])).sum() for tail in (alternative, reference)]
    assert ratio == pytest.approx(whole[0] - whole[1], abs=1e-9)
    assert model.log_likelihood_ratio(before, alternative, reference) == pytest.approx(-ratio, abs=1e-12)


def test_haplotypes_of_different_length_are_refused() -> None:
    model = MarkovModel(count_contexts([base_codes("ACGTACGT")], 1), (1.0, 1.0))
    with pytest.raises(ValueError, match="Haplotypes of 3 and 2 bases"):
        model.log_likelihood_ratio(base_codes("A"), base_codes("ACG"), base_codes("AC"))


def test_fitting_recovers_a_true_order_two_source() -> None:
    rng = np.random.default_rng(3)
    source = rng.dirichlet(np.full(4, 0.5), size=(4, 4))
    codes = np.zeros(60_000, np.uint8)
    draws = rng.random(len(codes))
    for i in range(2, len(codes)):
        codes[i] = np.searchsorted(source[codes[i - 2], codes[i - 1]].cumsum()[:-1], draws[i])
    models = fit_markov_models([codes[:50_000]], [codes[50_000:55_000]], [0, 2, 5])
    bits = {k: -m.log_probabilities(codes[55_000:]).mean() / math.log(2) for k, m in models.items()}
    entropy = -np.log2(source[codes[54_998:-2], codes[54_999:-1], codes[55_000:]]).mean()
    assert bits[0] > entropy + 0.2
    assert bits[2] == pytest.approx(entropy, abs=0.003)
    # Interpolation keeps a too high order from hurting; one strand is chosen, since the source is not symmetric.
    assert bits[5] == pytest.approx(entropy, abs=0.01)
    assert not models[2].both_strands


def test_tuning_never_loses_to_a_fixed_pseudo_count() -> None:
    rng = np.random.default_rng(4)
    train, validation = (rng.choice(4, n, p=(0.4, 0.1, 0.2, 0.3)).astype(np.uint8) for n in (3000, 1500))
    fitted = fit_markov_models([train], [validation], [4])[4]
    tuned = -fitted.log_probabilities(validation).sum()
    for strength in (0.25, 1.0, 4.0, 64.0):
        for strands in ([train], [train, reverse_complement_codes(train)]):
            fixed = MarkovModel(count_contexts(strands, 4), (strength,) * 5)
            assert tuned <= -fixed.log_probabilities(validation).sum() + 1e-6


@pytest.mark.parametrize("order", [-1, 13])
def test_an_impossible_order_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=r"within 0\.\.12"):
        count_contexts([base_codes("ACGT")], order)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="training sequence holds no"):
        fit_markov_models([base_codes("NNNN")], [base_codes("ACGT")], [1])


def test_strengths_must_fit_the_orders() -> None:
    counts: ContextCounts = count_contexts([base_codes("ACGT")], 1)
    with pytest.raises(ValueError, match="2 orders"):
        MarkovModel(counts, (1.0,))
    with pytest.raises(ValueError, match="positive"):
        MarkovModel(counts, (1.0, 0.0))

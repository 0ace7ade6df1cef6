"""ln p of hidden bases: the same places and numbers whatever the windows, regions and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import genossm.genome
from genossm.core.errors import ConfigError, MethodError
from genossm.evaluation import likelihood
from genossm.evaluation.masked_likelihood import hidden_log_probabilities, hidden_places
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven

LENGTH = 200


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    letters = np.random.default_rng(0).choice(list("ACGTN"), LENGTH, p=[0.24, 0.24, 0.24, 0.24, 0.04])
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    path.write_text(">x\n" + "".join(letters) + "\n")
    return genossm.genome.open(path)


@pytest.fixture(scope="module")
def model() -> SequenceModel:
    torch.manual_seed(0)
    config = StackConfig(d_model=8, n_layer=2, d_state=4, direction="bidirectional", objective="masked")
    return enliven(SequenceModel(config)).eval()


def by_hand(model: SequenceModel, genome: Genome, window: Interval, place: int, fraction: float, seed: int) -> float:
    """ln p of base `place` in a window written out letter by letter."""
    ids = model.encode(genome.fetch(window))
    for i in range(len(window)):
        hidden = hidden_places(Interval("x", window.start + i, window.start + i + 1), fraction, seed)[0]
        if hidden and genome.fetch(Interval("x", window.start + i, window.start + i + 1)) in (b"A", b"C", b"G", b"T"):
            ids[0, i] = model.tokenizer.mask_id
    with torch.no_grad():
        logits = model(ids).logits[0, place - window.start, 7:11].double()
    base = b"ACGT".index(genome.fetch(Interval("x", place, place + 1)))
    return float(torch.log_softmax(logits, 0)[base])


@settings(deadline=None, max_examples=10)
@given(
    start=st.integers(0, 60), length=st.integers(1, 120), quarter=st.integers(1, 15), batch=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_each_base_sees_a_quarter_of_the_context_on_either_side_and_masks_everywhere(
    model: SequenceModel, genome: Genome, start: int, length: int, quarter: int, batch: int, seed: int
) -> None:
    region = Interval("x", start, start + length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "_BATCH_TOKENS", batch)
        values = hidden_log_probabilities(model, genome, region, fraction=0.4, seed=seed, context=4 * quarter)
    hidden = hidden_places(region, 0.4, seed)
    known = np.array([letter in b"ACGT" for letter in genome.fetch(region)])
    np.testing.assert_array_equal(values != 0, hidden & known)
    for i in np.flatnonzero(values)[:: max(1, length // 6)]:
        first = start + (int(i) // (2 * quarter)) * 2 * quarter
        window = Interval("x", max(0, first - quarter), min(LENGTH, first + 3 * quarter))
        assert values[i] == pytest.approx(by_hand(model, genome, window, start + int(i), 0.4, seed), abs=2e-5)


def test_without_a_context_the_region_is_one_window(model: SequenceModel, genome: Genome) -> None:
    region = Interval("x", 30, 150)
    values = hidden_log_probabilities(model, genome, region, fraction=0.3, seed=1, context=None)
    for i in np.flatnonzero(values)[::7]:
        assert values[i] == pytest.approx(by_hand(model, genome, region, 30 + int(i), 0.3, 1), abs=2e-5)
    # A window that covers the contig, scored in its middle, sees the same as the whole contig in one pass.
    whole = hidden_log_probabilities(model, genome, Interval("x", 0, LENGTH), fraction=0.3, seed=1, context=None)
    wide = hidden_log_probabilities(model, genome, Interval("x", 0, LENGTH), fraction=0.3, seed=1, context=4 * LENGTH)
    np.testing.assert_allclose(wide, whole, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(
    start=st.integers(0, 3_000_000_000), length=st.integers(1, 200_000), cut=st.floats(0, 1), seed=st.integers(0, 2**32)
)
def test_places_are_a_function_of_position(start: int, length: int, cut: float, seed: int) -> None:
    region = Interval("x", start, start + length)
    whole = hidden_places(region, 0.15, seed)
    assert len(whole) == length
    inner = Interval("x", start + int(cut * (length - 1)), start + length)
    np.testing.assert_array_equal(whole[inner.start - start :], hidden_places(inner, 0.15, seed))
    # A larger share hides more and uncovers nothing.
    assert not (whole & ~hidden_places(region, 0.3, seed)).any()


def test_the_share_is_the_one_asked_for_and_contig_and_seed_matter() -> None:
    region = Interval("x", 12_345, 512_345)
    found = {
        (contig, seed): hidden_places(Interval(contig, region.start, region.end), 0.15, seed)
        for contig in ("x", "y")
        for seed in (0, 1)
    }
    low, high = binom.ppf([1e-8, 1 - 1e-8], len(region), 0.15)
    both_low, both_high = binom.ppf([1e-8, 1 - 1e-8], len(region), 0.15**2)
    drawn = list(found.values())
    for i, places in enumerate(drawn):
        assert low <= places.sum() <= high
        for other in drawn[:i]:
            assert both_low <= (places & other).sum() <= both_high


def test_all_hidden_and_what_is_not_possible(model: SequenceModel, genome: Genome) -> None:
    region = Interval("x", 0, 50)
    assert hidden_places(region, 1.0, 0).all()
    for context in (0, 2, 6, 7):
        with pytest.raises(ConfigError, match="cannot be quartered"):
            hidden_log_probabilities(model, genome, region, fraction=0.15, seed=0, context=context)
    causal = SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4))
    with pytest.raises(MethodError, match="needs a masked model"):
        hidden_log_probabilities(causal, genome, region, fraction=0.15, seed=0, context=8)

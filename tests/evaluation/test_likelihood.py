"""ln p of every base of a region: the same numbers whatever the windows and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError
from genossm.evaluation import likelihood
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    letters = np.random.default_rng(0).choice(list("ACGTN"), 200, p=[0.24, 0.24, 0.24, 0.24, 0.04])
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    path.write_text(">x\n" + "".join(letters) + "\n")
    return genossm.genome.open(path)


@pytest.fixture(scope="module")
def model() -> SequenceModel:
    torch.manual_seed(0)
    return enliven(SequenceModel(StackConfig(d_model=8, n_layer=2, d_state=4))).eval()


def by_hand(model: SequenceModel, genome: Genome, start: int, place: int) -> float:
    """ln p of base `place` from [BOS] and the bases from `start` on, in a pass of its own."""
    read = genome.fetch(Interval("x", start, place)) if place > start else b""
    with torch.no_grad():
        logits = model(model.encode(read, add_bos=True)).logits[0, -1, 7:11].double()
    base = b"ACGT".index(genome.fetch(Interval("x", place, place + 1)))
    return float(torch.log_softmax(logits, 0)[base])


@settings(deadline=None, max_examples=8)
@given(start=st.integers(0, 60), length=st.integers(1, 70), half=st.integers(1, 20), batch=st.integers(1, 64))
def test_each_base_sees_at_least_half_a_context_and_never_itself(
    model: SequenceModel, genome: Genome, start: int, length: int, half: int, batch: int
) -> None:
    region = Interval("x", start, start + length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "_BATCH_TOKENS", batch)
        values, scored = base_log_probabilities(model, genome, region, context=2 * half)
    letters = genome.fetch(region)
    assert scored.tolist() == [letter in b"ACGT" for letter in letters]
    for i in range(0, length, max(1, length // 6)):
        if not scored[i]:
            assert values[i] == 0.0
            continue
        window_start = max(0, start + (i // half) * half - half)
        assert values[i] == pytest.approx(by_hand(model, genome, window_start, start + i), abs=2e-5)


def test_one_pass_reads_from_the_regions_start_to_its_end(
    model: SequenceModel, genome: Genome, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = Interval("x", 30, 180)
    values, scored = base_log_probabilities(model, genome, region, context=None)
    for i in (0, 1, 77, 149):
        if scored[i]:
            assert values[i] == pytest.approx(by_hand(model, genome, 30, 30 + i), abs=2e-5)
    monkeypatch.setattr(likelihood, "_BATCH_TOKENS", 13)
    np.testing.assert_allclose(base_log_probabilities(model, genome, region, context=None)[0], values, atol=2e-5)


def test_a_window_as_long_as_the_region_and_more_is_one_pass(model: SequenceModel, genome: Genome) -> None:
    region = Interval("x", 0, 150)
    windowed, _ = base_log_probabilities(model, genome, region, context=300)
    np.testing.assert_allclose(windowed, base_log_probabilities(model, genome, region, context=None)[0], atol=2e-5)


@pytest.mark.parametrize("context", [None, 40])
def test_a_model_without_bos_cannot_score_a_first_base(genome: Genome, context: int | None) -> None:
    torch.manual_seed(1)
    model = SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4), NucleotideTokenizer()).eval()
    first = next(i for i, letter in enumerate(genome.fetch(Interval("x", 0, 20))) if letter in b"ACGT")
    values, scored = base_log_probabilities(model, genome, Interval("x", first, first + 30), context=context)
    # With windows the first base of a region has the bases left of it, unless it is the contig's first.
    expected = context is not None and first > 0
    assert bool(scored[0]) is expected
    assert (values[0] == 0.0) is not expected
    assert scored[1:].sum() == sum(letter in b"ACGT" for letter in genome.fetch(Interval("x", first + 1, first + 30)))


def test_a_context_that_cannot_be_halved_is_refused(model: SequenceModel, genome: Genome) -> None:
    for context in (0, 7):
        with pytest.raises(ConfigError, match="cannot be halved"):
            base_log_probabilities(model, genome, Interval("x", 0, 50), context=context)

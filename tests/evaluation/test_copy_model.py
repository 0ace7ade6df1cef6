"""The copy model: real probabilities, from the past alone, that find repeats on both strands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import genossm.genome
from genossm.core.errors import ConfigError
from genossm.evaluation.copy_model import CopyModel
from genossm.evaluation.copy_tables import counts_after, latest_copies
from genossm.evaluation.markov import MarkovModel, base_codes, count_contexts, reverse_complement_codes
from genossm.genome import Genome
from genossm.sequence import reverse_complement
from genossm.sequence.interval import Interval
from genossm.testing.toy import random_sequence, write_fasta

TRAIN = random_sequence(3000, seed=9)
REPEAT = random_sequence(400, seed=1)
FILL = [random_sequence(300, seed=seed) for seed in range(20, 24)]
# Judged: a repeat, again after 300 bases, and again on the other strand; then something from the training sequence.
SEQUENCE = FILL[0] + REPEAT + FILL[1] + REPEAT + FILL[2] + reverse_complement(REPEAT) + TRAIN[500:900] + FILL[3]
VALIDATION = random_sequence(500, seed=30) * 2 + random_sequence(400, seed=31) + TRAIN[1000:1300]


def genome_of(folder: Path, judged: bytes) -> Genome:
    return genossm.genome.open(write_fasta(folder / "toy.fa", {"x": judged, "v": VALIDATION}))


def model_of(genome: Genome, *, trained: bool) -> CopyModel:
    codes = base_codes(TRAIN)
    markov = MarkovModel(count_contexts([codes], 2), (1.0, 20.0, 200.0))
    return CopyModel(genome, markov, [Interval("v", 0, len(VALIDATION))], [codes] if trained else None, 4096)


def bits_of(values: NDArray[np.float64], first: int, last: int) -> float:
    return float(-values[first:last].mean() / np.log(2))


@pytest.mark.parametrize("trained", [False, True])
def test_repeats_are_found_on_both_strands_and_noise_costs_two_bits(tmp_path: Path, trained: bool) -> None:
    genome = genome_of(tmp_path, SEQUENCE)
    region = Interval("x", 0, len(SEQUENCE))
    values, scored = model_of(genome, trained=trained).score(region, 8192)
    assert scored.all()
    assert 1.9 < bits_of(values, 0, 1000) < 2.2
    assert bits_of(values, 1030, 1400) < 0.4
    assert bits_of(values, 1730, 2100) < 0.4
    from_training = bits_of(values, 2130, 2500)
    assert from_training < 0.4 if trained else from_training > 1.9
    assert 1.9 < bits_of(values, 2530, 2800) < 2.3


@pytest.mark.parametrize("trained", [False, True])
def test_the_four_bases_share_one_and_the_past_knows_no_future(tmp_path: Path, trained: bool) -> None:
    region = Interval("x", 0, len(SEQUENCE))
    for place in (350, 1100, 1720, 1900, 2300):
        chances, pasts = [], []
        for base in b"ACGT":
            changed = bytearray(SEQUENCE)
            changed[place] = base
            folder = tmp_path / f"{place}-{base}"
            folder.mkdir()
            values, _ = model_of(genome_of(folder, bytes(changed)), trained=trained).score(region, 8192)
            chances.append(np.exp(values[place]))
            pasts.append(values[:place])
        assert sum(chances) == pytest.approx(1.0, abs=1e-9)
        for past in pasts[1:]:
            np.testing.assert_array_equal(past, pasts[0])


def test_a_window_depends_on_nothing_outside_it(tmp_path: Path) -> None:
    genome = genome_of(tmp_path, SEQUENCE)
    whole, _ = model_of(genome, trained=False).score(Interval("x", 0, 2000), 1000)
    other = model_of(genome, trained=False)
    other.score(Interval("x", 100, 1900), 600)
    part, _ = other.score(Interval("x", 1000, 2000), 1000)
    np.testing.assert_allclose(part, whole[1000:], atol=1e-12)


def test_more_context_finds_what_is_farther(tmp_path: Path) -> None:
    genome = genome_of(tmp_path, SEQUENCE)
    model = model_of(genome, trained=False)
    # The copy lies 700 bases back: windows of 1,024 that see half to all of that mostly miss it, 4,096 do not.
    near, far = (model.score(Interval("x", 1000, 1400), context)[0] for context in (256, 4096))
    assert bits_of(near, 30, 400) > 1.9
    assert bits_of(far, 30, 400) < 0.4


def test_unknown_letters_are_skipped_and_break_copies(tmp_path: Path) -> None:
    letters = bytearray(SEQUENCE)
    letters[1200:1210] = b"N" * 10
    values, scored = model_of(genome_of(tmp_path, bytes(letters)), trained=False).score(Interval("x", 900, 1500), 4096)
    assert np.flatnonzero(~scored).tolist() == list(range(300, 310))
    assert (values[300:310] == 0).all()
    assert bits_of(values, 310, 322) > 1.0
    assert bits_of(values, 340, 500) < 0.5


@pytest.mark.parametrize("context", [16, 33, 16384])
def test_contexts_out_of_range_are_refused(tmp_path: Path, context: int) -> None:
    with pytest.raises(ConfigError, match="wanted 32 to 8192"):
        model_of(genome_of(tmp_path, SEQUENCE), trained=False).score(Interval("x", 0, 100), context)


CODES = st.lists(st.sampled_from([0, 1, 2, 3, 0, 1, 4]), min_size=1, max_size=60).map(lambda v: np.array(v, np.uint8))


@settings(max_examples=15)
@given(judged=CODES, train=CODES, k=st.integers(1, 5))
def test_counts_after_words_are_those_of_both_strands(
    judged: NDArray[np.uint8], train: NDArray[np.uint8], k: int
) -> None:
    found = counts_after(judged, [train], k)
    strands = [train.tolist(), reverse_complement_codes(train).tolist()]
    for t in range(len(judged)):
        word = judged[t - k : t].tolist() if t >= k else [4]
        expected = [0, 0, 0, 0]
        for strand in strands:
            for i in range(k, len(strand)):
                if 4 not in word and strand[i - k : i] == word and strand[i] < 4:
                    expected[strand[i]] += 1
        assert found[t].tolist() == expected


@settings(max_examples=15)
@given(judged=CODES, train=CODES, k=st.integers(2, 5))
def test_latest_copies_point_at_what_followed(judged: NDArray[np.uint8], train: NDArray[np.uint8], k: int) -> None:
    for t, entry in enumerate(latest_copies(judged, train, k)):
        word = judged[t - k : t].tolist() if t >= k else [4]
        if 4 in word:
            assert entry == 0
            continue
        ends = [i for i in range(k, len(train)) if train[i - k : i].tolist() == word and train[i] < 4]
        other = reverse_complement_codes(np.array(word, np.uint8)).tolist()
        starts = [i for i in range(len(train) - k) if train[i + 1 : i + 1 + k].tolist() == other and train[i] < 4]
        if entry == 0:
            assert not ends
            assert not starts
        elif entry > 0:
            assert entry - 1 == max(ends)
        else:
            assert -entry - 1 == max(starts)

"""Windows: a pure function of seed and number, inside their regions, within the N limit."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError, IntervalError
from genossm.data.batch import IGNORE, CausalCollator
from genossm.data.dataset import WindowDataset
from genossm.data.unknown import UnknownRuns
from genossm.data.windows import RandomWindows, TiledWindows, _allowed
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval


def write_fasta(path: Path, **contigs: str) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    return path


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    rng = np.random.default_rng(0)
    known = "".join(rng.choice(list("ACGT"), 400))
    holed = known[:100] + "N" * 50 + known[150:300] + "R" + known[301:390] + "N" * 10
    return genossm.genome.open(write_fasta(tmp_path / "toy.fa", known=known, holed=holed, short="ACGTACGT"))


REGIONS = (Interval("known", 20, 120), Interval("holed", 0, 400))


@settings(deadline=None, max_examples=30)
@given(letters=st.text(alphabet="ACGTNR", min_size=1, max_size=80), chunk=st.integers(1, 20), data=st.data())
def test_unknown_letters_are_counted_from_their_runs(
    letters: str, chunk: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = data.draw(st.integers(0, len(letters) - 1))
    end = data.draw(st.integers(start + 1, len(letters)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genossm.data.unknown._CHUNK", chunk)
        path = write_fasta(tmp_path_factory.mktemp("runs") / "x.fa", x=letters)
        runs = UnknownRuns.scan(genossm.genome.open(path), Interval("x", start, end))
    firsts = np.arange(start, end)
    for width in (1, 3, 10):
        lasts = np.minimum(firsts + width, end)
        expected = [sum(letter in "NR" for letter in letters[a:b]) for a, b in zip(firsts, lasts)]
        assert runs.count(firsts, lasts).tolist() == expected


def test_random_windows_cover_their_regions_evenly(genome: Genome) -> None:
    plan = RandomWindows(genome, REGIONS[:1], 10, seed=5)
    starts = Counter(plan.interval(n).start for n in range(9100))
    assert min(starts) == 20
    assert max(starts) == 110
    # 91 starts, 100 draws each expected: 6 standard deviations are 60.
    assert len(starts) == 91
    assert all(40 < count < 160 for count in starts.values())


def test_random_windows_choose_regions_by_length(genome: Genome) -> None:
    plan = RandomWindows(genome, (Interval("known", 0, 110), Interval("known", 200, 310)), 11, seed=1)
    left = sum(plan.interval(n).start < 110 for n in range(2000))
    assert 850 < left < 1150


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
def test_windows_keep_to_the_n_limit_and_report_what_it_costs(
    genome: Genome, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="genossm.data.windows")
    region, window = REGIONS[1], 20
    letters = genome.fetch(region)
    unknown = [sum(letter not in b"ACGT" for letter in letters[s : s + window]) for s in range(400 - window + 1)]
    allowed = {s for s, count in enumerate(unknown) if count <= int(limit * window)}
    plan = RandomWindows(genome, [region], window, seed=2, max_n_fraction=limit)
    assert plan.excluded == len(unknown) - len(allowed)
    assert {plan.interval(n).start for n in range(6000)} == allowed
    assert f"{plan.excluded} of {len(unknown)} windows left out, over max_n_fraction = {limit:g}" in caplog.text
    tiled = TiledWindows(genome, [region], window, stride=7, max_n_fraction=limit)
    assert [tiled.interval(n).start for n in range(tiled.epoch_size)] == sorted(allowed & set(range(0, 381, 7)))
    assert tiled.excluded == len(range(0, 381, 7)) - tiled.epoch_size


def test_tiles_lie_side_by_side_and_leave_the_tail(genome: Genome) -> None:
    plan = TiledWindows(genome, (Interval("known", 20, 125), Interval("known", 200, 230)), 10)
    expected = [*range(20, 120, 10), 200, 210, 220]
    assert [plan.interval(n).start for n in range(plan.epoch_size)] == expected
    assert all(plan.interval(n).strand == "+" for n in range(plan.epoch_size))


def test_shuffled_epochs_are_permutations_that_differ(genome: Genome) -> None:
    plan = TiledWindows(genome, REGIONS[:1], 10, stride=1, shuffle=True, seed=3)
    size = plan.epoch_size
    epochs = [[plan.interval(epoch * size + i).start for i in range(size)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(20, 111)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("kind", [RandomWindows, TiledWindows])
def test_a_number_gives_one_window_whoever_asks_and_when(
    kind: type[RandomWindows] | type[TiledWindows], genome: Genome
) -> None:
    def make(seed: int) -> list[Interval]:
        extra: dict[str, Any] = {"shuffle": True} if kind is TiledWindows else {}
        plan = kind(genome, REGIONS, 10, seed=seed, reverse_complement=True, max_n_fraction=1.0, **extra)
        order = np.random.default_rng().permutation(200)
        found = {int(n): plan.interval(int(n)) for n in order}
        return [found[n] for n in range(200)]

    first = make(7)
    assert first == make(7)
    assert first != make(8)
    strands = Counter(interval.strand for interval in first)
    assert 60 < strands["-"] < 140


def test_a_contig_shorter_than_the_window_is_an_error_that_names_it(genome: Genome) -> None:
    whole = Interval("short", 0, 8)
    for kind in (RandomWindows, TiledWindows):
        with pytest.raises(IntervalError, match="window of 10 bases does not fit: contig short has 8 bases"):
            kind(genome, [*REGIONS, whole], 10)
    with pytest.raises(IntervalError, match=r"region known:21-25 has 5 bases"):
        RandomWindows(genome, [Interval("known", 20, 25)], 10)


def test_a_region_of_n_alone_is_an_error_that_names_the_limit(genome: Genome) -> None:
    for kind in (RandomWindows, TiledWindows):
        with pytest.raises(IntervalError, match=r"holed:101-150 has more than 10%.*max_n_fraction"):
            kind(genome, [Interval("holed", 100, 150)], 10)


def test_impossible_options_are_refused(genome: Genome) -> None:
    with pytest.raises(ConfigError, match="stride must be at least 1"):
        TiledWindows(genome, REGIONS, 10, stride=0)
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        RandomWindows(genome, REGIONS, 10, max_n_fraction=1.5)
    with pytest.raises(ConfigError, match="at least 1 base"):
        RandomWindows(genome, REGIONS, 0)


@settings(deadline=None, max_examples=60)
@given(letters=st.text(alphabet="ACGTNR", min_size=1, max_size=80), data=st.data())
def test_allowed_starts_are_those_that_counting_allows(
    letters: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    window = data.draw(st.integers(1, len(letters)))
    region = Interval("x", data.draw(st.integers(0, len(letters) - window)), len(letters))
    limit = data.draw(st.integers(0, window))
    genome = genossm.genome.open(write_fasta(tmp_path_factory.mktemp("allowed") / "x.fa", x=letters))
    expected = [
        start
        for start in range(region.start, len(letters) - window + 1)
        if sum(letter in "NR" for letter in letters[start : start + window]) <= limit
    ]
    ranges = _allowed(genome, region, window, limit)
    assert [start for first, end in ranges for start in range(first, end)] == expected
    assert all(left[1] < right[0] for left, right in pairwise(ranges))


def test_short_regions_are_left_out_where_asked_for_and_counted(
    genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    regions = [Interval("known", 0, 5), *REGIONS, Interval("short", 0, 8)]
    for kind in (RandomWindows, TiledWindows):
        with pytest.raises(IntervalError, match=r"leave short regions out \(short_regions: skip, or pad\)"):
            kind(genome, regions, 10)
        caplog.clear()
        plan, without = kind(genome, regions, 10, short_regions="skip"), kind(genome, REGIONS, 10)
        assert "2 of 4 regions are left out, 13 bases: they are shorter than a window of 10" in caplog.text
        assert [plan.interval(n) for n in range(30)] == [without.interval(n) for n in range(30)]
        with pytest.raises(IntervalError, match="does not fit: contig short has 8 bases"):
            kind(genome, [Interval("short", 0, 8)], 10, short_regions="skip")
    with pytest.raises(ConfigError, match="short_regions is 'pda'; wanted one of raise, skip, pad"):
        RandomWindows(genome, REGIONS, 10, short_regions="pda")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tails", "expected"),
    [
        ("drop", [(20, 30), (30, 40), (0, 10)]),
        ("shift", [(20, 30), (30, 40), (35, 45), (0, 10)]),
        ("pad", [(20, 30), (30, 40), (40, 45), (0, 10)]),
    ],
)
def test_tails_are_dropped_shifted_or_padded(
    genome: Genome, tails: Literal["drop", "shift", "pad"], expected: list[tuple[int, int]]
) -> None:
    plan = TiledWindows(genome, [Interval("known", 20, 45), Interval("known", 0, 10)], 10, tails=tails)
    found = [plan.interval(n) for n in range(plan.epoch_size)]
    assert [(one.start, one.end) for one in found] == expected
    assert plan.pads == (tails == "pad")
    # Strides beside the window: wide ones leave no tail in a gap, narrow ones leave one tail.
    for stride, starts in ((20, [20, 40]), (4, [20, 24, 28, 32, 36])):
        sparse = TiledWindows(genome, [Interval("known", 20, 45)], 10, stride=stride, tails="pad")
        assert [sparse.interval(n).start for n in range(sparse.epoch_size)] == starts


def test_short_regions_are_padded_where_asked_for_and_as_frequent_as_others(genome: Genome) -> None:
    regions = [Interval("known", 0, 100), Interval("short", 0, 8)]
    tiles = TiledWindows(genome, regions, 50, short_regions="pad")
    assert [tiles.interval(n) for n in range(tiles.epoch_size)][-1] == Interval("short", 0, 8)
    plan = RandomWindows(genome, regions, 50, seed=1, reverse_complement=True, short_regions="pad")
    assert plan.pads
    found = Counter(plan.interval(n).contig for n in range(4000))
    # 51 starts in one region, 50 draws for the other: a base of it comes as often as one in the middle of the first.
    assert 1800 < found["short"] < 2200
    assert {len(plan.interval(n)) for n in range(100)} == {8, 50}
    assert plan.length(0) == 50


@settings(deadline=None, max_examples=20)
@given(jitter=st.integers(1, 30), seed=st.integers(0, 5))
def test_jitter_moves_tiles_within_region_and_limit(
    jitter: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    letters = "ACGT" * 20 + "N" * 8 + "ACGT" * 20
    path = write_fasta(tmp_path_factory.mktemp("jitter") / "x.fa", x=letters)
    genome, region = genossm.genome.open(path), Interval("x", 5, 160)

    def make(jitter: int) -> TiledWindows:
        return TiledWindows(genome, [region], 10, seed=seed, shuffle=True, jitter=jitter, max_n_fraction=0.2)

    plan, still = make(jitter), make(0)
    moved = [(plan.interval(n), still.interval(n)) for n in range(3 * plan.epoch_size)]
    assert all(region.start <= one.start and one.end <= region.end and len(one) == 10 for one, _ in moved)
    assert all(abs(one.start - tile.start) <= jitter for one, tile in moved)
    assert all(letters[one.start : one.end].count("N") <= 2 for one, _ in moved)
    assert len({one.start - tile.start for one, tile in moved}) > min(jitter, 5)
    assert [plan.interval(n) for n in reversed(range(30))] == [make(jitter).interval(n) for n in reversed(range(30))]


def test_padding_is_n_behind_the_bases_as_read(genome: Genome) -> None:
    tokenizer = NucleotideTokenizer()
    plan = TiledWindows(genome, [Interval("short", 0, 8)], 12, short_regions="pad", reverse_complement=True)
    data = WindowDataset(genome, plan, tokenizer)
    both = {data[n].interval.strand: tokenizer.decode(data[n].ids) for n in range(20)}
    assert both == {"+": "[BOS]ACGTACGTNNNN", "-": "[BOS]ACGTACGTNNNN"}
    batch = CausalCollator(tokenizer)([data[0]])
    assert batch.targets[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, *[IGNORE] * 4]


def test_impossible_tails_and_jitter_are_refused(genome: Genome) -> None:
    with pytest.raises(ConfigError, match="jitter -1"):
        TiledWindows(genome, REGIONS, 10, jitter=-1)
    with pytest.raises(ConfigError, match="tails is 'cut'"):
        TiledWindows(genome, REGIONS, 10, tails="cut")  # type: ignore[arg-type]

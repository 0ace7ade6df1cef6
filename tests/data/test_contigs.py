"""Walks along contigs: every base in order, nothing over a gap, and what a row reads is what its strand says."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import IntervalError
from genossm.data.contigs import (
    IDLE,
    ContigSweep,
    ContigWalks,
    Segment,
    SegmentBatch,
    SegmentCollator,
    SegmentDataset,
    stretches,
)
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval

TOKENIZER = NucleotideTokenizer(special_tokens="bos")
LENGTHS = {"a": 1000, "b": 333, "c": 64, "gap": 400}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("contigs") / "toy.fa"
    letters = {name: "".join(rng.choice(list("ACGT"), length)) for name, length in LENGTHS.items()}
    # N: 50 at the beginning, 100 in the middle, 5 further on.
    gap = letters["gap"]
    letters["gap"] = "N" * 50 + gap[50:150] + "N" * 100 + gap[250:300] + "N" * 5 + gap[305:]
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in letters.items()))
    with genossm.genome.open(path) as genome:
        yield genome


def whole(*names: str) -> list[Interval]:
    return [Interval(name, 0, LENGTHS[name]) for name in names]


def test_long_runs_of_n_end_a_stretch_and_short_ones_do_not(genome: Genome) -> None:
    found = stretches(genome, whole("gap", "c"), 50)
    assert found == (Interval("gap", 50, 150), Interval("gap", 250, 400), Interval("c", 0, 64))
    assert stretches(genome, whole("gap"), 101) == tuple(whole("gap"))
    assert stretches(genome, [Interval("gap", 150, 250)], 50) == ()


def walk(plan: ContigWalks, row: int, epoch: int = 0) -> list[Segment]:
    first = epoch * plan.steps_per_epoch
    return [plan.segment(step * plan.rows + row) for step in range(first, first + plan.steps_per_epoch)]


@given(
    rows=st.integers(1, 6),
    window=st.integers(20, 400),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    both=st.booleans(),
)
def test_rows_walk_in_order_and_together_read_every_base(
    genome: Genome, rows: int, window: int, seed: int, epoch: int, both: bool
) -> None:
    regions = whole("a", "b", "c")
    if sum(-(-len(region) // window) for region in regions) < rows:
        return
    plan = ContigWalks(genome, regions, window, rows=rows, seed=seed, reverse_complement=both)
    count = {name: np.zeros(LENGTHS[name], np.int64) for name in "abc"}
    for row in range(rows):
        segments = walk(plan, row, epoch)
        assert segments[0].begins
        previous: Segment | None = None
        for segment in segments:
            interval = segment.interval
            count[interval.contig][interval.start : interval.end] += 1
            if segment.begins:
                if segment is not segments[0]:
                    # Only the end of a contig lets a row begin anew.
                    assert previous is not None
                    edge = previous.interval.start if previous.interval.strand == "-" else previous.interval.end
                    assert edge in (0, LENGTHS[previous.interval.contig])
                    first = interval.end == LENGTHS[interval.contig] if interval.strand == "-" else interval.start == 0
                    assert first
            else:
                assert previous is not None
                assert (interval.contig, interval.strand) == (previous.interval.contig, previous.interval.strand)
                if interval.strand == "-":
                    assert interval.end == previous.interval.start
                else:
                    assert interval.start == previous.interval.end
            previous = segment
    bases = np.concatenate(list(count.values()))
    assert bases.min() >= 1
    # A few segments come twice where the rows do not divide them.
    assert (bases == 2).sum() <= (rows - 1) * window
    assert bases.max() <= 2
    if not both:
        assert all(plan.segment(n).interval.strand == "+" for n in range(plan.epoch_size))


def test_epochs_differ_in_order_strand_and_where_rows_begin(genome: Genome) -> None:
    plan = ContigWalks(genome, whole("a", "b", "c"), 50, rows=2, reverse_complement=True)
    epochs = [tuple(str(segment.interval) for segment in walk(plan, 0, epoch)) for epoch in range(8)]
    assert len(set(epochs)) == 8
    strands = {plan.segment(n).interval.strand for n in range(plan.epoch_size * 4)}
    assert strands == {"+", "-"}


def test_the_ids_of_a_walk_are_the_strand_it_reads(genome: Genome) -> None:
    plan = ContigWalks(genome, whole("a", "b", "c"), 70, rows=3, reverse_complement=True, seed=3)
    data = SegmentDataset(genome, plan, TOKENIZER)
    seen = set()
    for row in range(3):
        read: list[int] = []
        begun = plan.segment(row).interval
        for step in range(plan.steps_per_epoch):
            item = data[step * 3 + row]
            filled = len(item.interval)
            assert (item.ids[filled + 1 :] == TOKENIZER.pad_id).all()
            assert item.ids[0] == (TOKENIZER.bos_id if item.begins else read[-1])
            read = ([] if item.begins else read) + item.ids[1 : filled + 1].tolist()
            begun = item.interval if item.begins else begun
            joined = (
                Interval(begun.contig, item.interval.start, begun.end, "-")
                if begun.strand == "-"
                else Interval(begun.contig, begun.start, item.interval.end)
            )
            assert read == genome.encode(joined, TOKENIZER).tolist()
            seen.add(item.interval.strand)
    assert seen == {"+", "-"}


def test_what_follows_the_end_and_unknown_letters_are_no_targets(genome: Genome) -> None:
    plan = ContigSweep(genome, whole("gap"), 60)
    data = SegmentDataset(genome, plan, TOKENIZER)
    batch = SegmentCollator(TOKENIZER)([data[n] for n in range(plan.epoch_size)])
    assert isinstance(batch, SegmentBatch)
    # The Ns up to 50 and those from 300 to 305 are shorter than a segment; those from 150 to 250 end a stretch.
    assert [(interval.start, len(interval)) for interval in batch.intervals] == [
        *((0, 60), (60, 60), (120, 30)),
        *((250, 60), (310, 60), (370, 30)),
    ]
    targets = (batch.targets != -100).sum(1).tolist()
    known = [np.isin(genome.fetch_array(i), np.frombuffer(b"ACGT", np.uint8)).sum() for i in batch.intervals]
    assert targets == known


@given(rows=st.integers(1, 5), ranks=st.integers(1, 4), window=st.integers(10, 500))
def test_a_sweep_reads_every_stretch_whole_in_one_row(genome: Genome, rows: int, ranks: int, window: int) -> None:
    plan = ContigSweep(genome, whole("a", "b", "c"), window)
    found: list[int] = []
    for rank in range(ranks):
        batches = plan.batches(rows, rank=rank, ranks=ranks)
        if rank >= 3:
            # Three stretches are not enough for a fourth rank.
            assert batches == [[IDLE]]
            continue
        found += [n for batch in batches for n in batch if n != IDLE]
        assert all(1 <= len(batch) <= rows for batch in batches)
        # Rows end from the last one on, so that row n of a batch goes on with row n of the one before.
        sizes = [len(batch) for batch in batches]
        assert sizes == sorted(sizes, reverse=True)
        for before, after in pairwise(batches):
            for left, right in zip(before, after):
                segment = plan.segment(right)
                if segment.begins:
                    assert plan.segment(left).interval.end == LENGTHS[plan.segment(left).interval.contig]
                else:
                    assert right == left + 1
    assert sorted(found) == list(range(plan.epoch_size))


def test_what_cannot_be_walked_is_refused(genome: Genome) -> None:
    with pytest.raises(IntervalError, match="20 rows cannot walk 10 segments of 100 bases"):
        ContigWalks(genome, whole("a"), 100, rows=20)
    with pytest.raises(IntervalError, match="nothing but runs of 50 or more letters other than A, C, G, T"):
        ContigWalks(genome, [Interval("gap", 0, 50)], 50, rows=1)


def test_excluded_bases_are_counted(genome: Genome) -> None:
    assert ContigWalks(genome, whole("gap"), 50, rows=2).excluded == 150
    assert ContigSweep(genome, whole("gap"), 101).excluded == 0


def test_a_worker_process_reads_what_this_one_reads(genome: Genome) -> None:
    plan = ContigWalks(genome, whole("a", "b", "c"), 70, rows=3, reverse_complement=True)
    here = SegmentDataset(genome, plan, TOKENIZER)
    there = pickle.loads(pickle.dumps(here))
    for sample in range(plan.epoch_size, plan.epoch_size + 9):
        left, right = here[sample], there[sample]
        assert (left.interval, left.begins) == (right.interval, right.begins)
        assert (left.ids == right.ids).all()


def test_an_idle_row_has_nothing_to_predict(genome: Genome) -> None:
    data = SegmentDataset(genome, ContigSweep(genome, whole("a"), 70), TOKENIZER)
    batch = SegmentCollator(TOKENIZER)([data[IDLE], data[0]])
    assert (batch.targets[0] == -100).all()
    assert (batch.targets[1] != -100).all()

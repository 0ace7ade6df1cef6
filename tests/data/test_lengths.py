"""Stages of window lengths: numbering, counting, and windows that stay a pure function of seed and step."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.data.batch import Batch
from genossm.data.datamodule import GenomeDataModule, SampleNumbers
from genossm.data.lengths import Lengths, Stage, StagedWindows
from genossm.data.windows import RandomWindows, TiledWindows, WindowPlan
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval


@st.composite
def schedules(draw: st.DrawFn) -> Lengths:
    sizes = st.tuples(st.integers(1, 50), st.integers(1, 6), st.integers(1, 5))
    stages = [Stage(window, batch, steps=steps) for window, batch, steps in draw(st.lists(sizes, max_size=3))]
    return Lengths([*stages, Stage(draw(st.integers(1, 50)), draw(st.integers(1, 6)))])


def walked(lengths: Lengths, steps: int) -> list[tuple[int, int]]:
    """(stage, sample within the stage) of every sample of the first steps, counted one by one."""
    stages = [n for n, stage in enumerate(lengths.stages[:-1]) for _ in range(stage.steps or 0)]
    stages += [len(lengths.stages) - 1] * steps
    found = []
    for number, steps_of_stage in itertools.groupby(stages[:steps]):
        within = itertools.count()
        found += [(number, next(within)) for _ in steps_of_stage for _ in range(lengths.stages[number].batch)]
    return found


@given(lengths=schedules(), steps=st.integers(1, 20))
def test_samples_are_numbered_through_the_stages_without_a_gap(lengths: Lengths, steps: int) -> None:
    numbers = [number for step in range(steps) for number in lengths.samples(step)]
    assert numbers == list(range(len(numbers)))
    assert [lengths.place(number) for number in numbers] == walked(lengths, steps)
    windows = [lengths.at(step).window for step in range(steps)]
    assert windows == [lengths.stages[lengths.place(lengths.samples(step)[0])[0]].window for step in range(steps)]
    ends = [step for step in range(1, steps) if lengths.place(lengths.samples(step)[0])[1] == 0]
    assert [step for step in range(steps) if lengths.is_boundary(step)] == ends


@given(lengths=schedules(), steps=st.integers(0, 20), more=st.integers(0, 400))
def test_bases_of_so_many_steps_and_steps_for_so_many_bases(lengths: Lengths, steps: int, more: int) -> None:
    expected = sum(len(lengths.samples(step)) * lengths.at(step).window for step in range(steps))
    assert lengths.tokens(steps) == expected
    wanted = expected + more
    found = lengths.steps_for(wanted)
    assert lengths.tokens(found) >= wanted
    assert found == 0 or lengths.tokens(found - 1) < wanted


def test_only_the_last_stage_goes_on_without_end() -> None:
    for stages in ([Stage(8, 1, steps=3)], [Stage(8, 1), Stage(16, 1)]):
        with pytest.raises(ValueError, match="Every stage but the last"):
            Lengths(stages)


LENGTHS = Lengths([Stage(8, 8, steps=3), Stage(16, 4, steps=2), Stage(64, 2)])


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 3000))
    (tmp_path / "toy.fa").write_text(f">x\n{letters[:2000]}\n>y\n{letters[2000:]}\n")
    return genossm.genome.open(tmp_path / "toy.fa")


REGIONS = (Interval("x", 0, 1500), Interval("y", 100, 900))


def module(genome: Genome, seed: int = 3) -> GenomeDataModule:
    def make(window: int, seed: int) -> WindowPlan:
        return RandomWindows(genome, REGIONS, window, seed=seed, reverse_complement=True)

    tokenizer, validation = NucleotideTokenizer(), TiledWindows(genome, [Interval("x", 1500, 2000)], 64)
    plan = StagedWindows(LENGTHS, make, seed)
    return GenomeDataModule(genome, tokenizer, plan, validation, batch=LENGTHS, validation_batch=2)


def batches(data: GenomeDataModule, count: int) -> list[Batch]:
    return list(itertools.islice(data.train_dataloader(), count))


def test_batches_follow_the_schedule(genome: Genome) -> None:
    alone = batches(module(genome), 8)
    assert [tuple(batch.input_ids.shape) for batch in alone] == [(8, 8)] * 3 + [(4, 16)] * 2 + [(2, 64)] * 3
    assert all(batch.input_ids.numel() in (64, 128) for batch in alone)
    assert {interval.contig for batch in alone for interval in batch.intervals} == {"x", "y"}
    # What a worker process gets.
    copied = module(genome)
    copied.train_data = pickle.loads(pickle.dumps(copied.train_data))
    for left, right in zip(alone, batches(copied, 8), strict=True):
        assert left.intervals == right.intervals
        assert torch.equal(left.input_ids, right.input_ids)


@pytest.mark.parametrize("first", [1, 3, 4, 5, 7])
def test_a_later_first_step_goes_on_in_its_stage(first: int) -> None:
    whole = list(itertools.islice(SampleNumbers(LENGTHS), 10))
    assert list(itertools.islice(SampleNumbers(LENGTHS, first_step=first), 10 - first)) == whole[first:]


def test_ranks_share_the_steps_of_every_stage() -> None:
    whole = list(itertools.islice(SampleNumbers(LENGTHS), 7))
    parts = [list(itertools.islice(SampleNumbers(LENGTHS, rank=rank, ranks=2), 7)) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
    with pytest.raises(ValueError, match="batch of 2 windows cannot be shared evenly by 4"):
        SampleNumbers(LENGTHS, ranks=4)


def test_stages_do_not_repeat_the_places_of_one_another(genome: Genome) -> None:
    plan = module(genome).train_data.plan
    assert isinstance(plan, StagedWindows)
    short, middle, long = ([one.interval(n).start for n in range(40)] for one in plan.plans)
    # Draws that shared a stream would be equal up to the length of the window.
    for left, right in itertools.combinations((short, middle, long), 2):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.5
    # A run of one length has the windows that it always had.
    alone = RandomWindows(genome, REGIONS, 8, seed=3, reverse_complement=True)
    assert [plan.interval(n) for n in range(24)] == [alone.interval(n) for n in range(24)]


def test_tiles_of_a_stage_begin_with_its_first_epoch(genome: Genome) -> None:
    def make(window: int, seed: int) -> WindowPlan:
        return TiledWindows(genome, REGIONS, window, shuffle=True, seed=seed)

    plan = StagedWindows(LENGTHS, make, 0)
    size = plan.plans[1].epoch_size
    assert sorted(plan.plans[1].interval(n).start for n in range(size)) == sorted(
        [*range(0, 1488, 16), *range(100, 900 - 15, 16)]
    )
    assert plan.interval(24) == plan.plans[1].interval(0)
    assert plan.interval(24 + 8) == plan.plans[2].interval(0)

"""From windows to tensors, at any worker count."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import genossm.genome
from genossm.data.batch import IGNORE, Batch, CausalCollator
from genossm.data.datamodule import GenomeDataModule, SampleNumbers
from genossm.data.dataset import WindowDataset
from genossm.data.lengths import Lengths
from genossm.data.windows import RandomWindows, TiledWindows
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer, reverse_complement
from genossm.sequence.interval import Interval

TOKENIZER = NucleotideTokenizer(special_tokens="bos")


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    rng = np.random.default_rng(0)
    path = tmp_path / "toy.fa"
    path.write_text(">x\n" + "".join(rng.choice(list("ACGTN"), 600, p=[0.24, 0.24, 0.24, 0.24, 0.04])) + "\n")
    return genossm.genome.open(path)


def modules(genome: Genome, workers: int) -> GenomeDataModule:
    train = RandomWindows(genome, [Interval("x", 0, 400)], 32, seed=3, reverse_complement=True, max_n_fraction=1.0)
    validation = TiledWindows(genome, [Interval("x", 400, 600)], 32, max_n_fraction=1.0)
    return GenomeDataModule(genome, TOKENIZER, train, validation, batch=4, validation_batch=4, workers=workers)


def test_inputs_are_bos_and_all_but_the_last_base_targets_are_all_known_bases(genome: Genome) -> None:
    data = modules(genome, 0)
    batch = data.collate([data.train_data[n] for n in range(6)])
    assert {interval.strand for interval in batch.intervals} == {"+", "-"}
    for row, interval in enumerate(batch.intervals):
        letters = genome.fetch(Interval("x", interval.start, interval.end)).decode()
        letters = reverse_complement(letters) if interval.strand == "-" else letters
        assert TOKENIZER.decode(batch.input_ids[row].numpy()) == "[BOS]" + letters[:-1]
        expected = ["ACGT".index(base) if base in "ACGT" else IGNORE for base in letters]
        assert batch.targets[row].tolist() == expected
    assert (batch.targets == IGNORE).any()


def batches(data: GenomeDataModule, count: int) -> list[Batch]:
    return list(itertools.islice(data.train_dataloader(), count))


def test_batches_are_the_same_at_any_worker_count(genome: Genome) -> None:
    alone, helped = (batches(modules(genome, workers), 5) for workers in (0, 2))
    for left, right in zip(alone, helped, strict=True):
        assert left.intervals == right.intervals
        assert torch.equal(left.input_ids, right.input_ids)
        assert torch.equal(left.targets, right.targets)


def test_validation_sees_every_tile_once(genome: Genome) -> None:
    loader = modules(genome, 0).val_dataloader()
    starts = [interval.start for batch in loader for interval in batch.intervals]
    assert starts == list(range(400, 592, 32))
    # The last batch is smaller, not dropped.
    assert [len(batch.intervals) for batch in loader] == [4, 2]


def test_a_later_first_step_goes_on_where_the_earlier_ones_stopped() -> None:
    whole = list(itertools.islice(SampleNumbers(Lengths.constant(8, 4)), 6))
    assert list(itertools.islice(SampleNumbers(Lengths.constant(8, 4), first_step=2), 4)) == whole[2:]
    assert sorted(itertools.chain(*whole)) == list(range(24))


def test_ranks_share_a_step_of_the_same_samples() -> None:
    whole = list(itertools.islice(SampleNumbers(Lengths.constant(8, 6)), 3))
    parts = [list(itertools.islice(SampleNumbers(Lengths.constant(8, 6), rank=rank, ranks=3), 3)) for rank in range(3)]
    assert [list(itertools.chain(*(part[step] for part in parts))) for step in range(3)] == whole
    with pytest.raises(ValueError, match="cannot be shared evenly by 4"):
        SampleNumbers(Lengths.constant(8, 6), ranks=4)


def test_a_dataset_that_was_pickled_reads_the_same(genome: Genome) -> None:
    dataset = modules(genome, 0).train_data
    before = dataset[5]
    after = pickle.loads(pickle.dumps(dataset))[5]
    assert before.interval == after.interval
    np.testing.assert_array_equal(before.ids, after.ids)


def test_one_epoch_is_as_many_windows_as_lie_side_by_side(genome: Genome) -> None:
    assert len(modules(genome, 0).train_data) == 400 // 32


def test_collation_refuses_windows_of_two_lengths(genome: Genome) -> None:
    plans = (TiledWindows(genome, [Interval("x", 0, 100)], length, max_n_fraction=1.0) for length in (10, 20))
    items = [WindowDataset(genome, plan, TOKENIZER)[0] for plan in plans]
    with pytest.raises(ValueError, match="same shape"):
        CausalCollator(TOKENIZER)(items)

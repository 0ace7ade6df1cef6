"""Soft-masked bases as lighter targets: on both strands, causal and masked, from FASTA and from a store."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import genossm.genome
from genossm.data.batch import IGNORE, CausalCollator
from genossm.data.datamodule import GenomeDataModule
from genossm.data.dataset import WindowDataset
from genossm.data.masking import MaskedCollator, Masking
from genossm.data.soft_mask import SoftMaskWeights
from genossm.data.windows import TiledWindows
from genossm.genome import Genome, build
from genossm.sequence import NucleotideTokenizer, reverse_complement
from genossm.sequence.interval import Interval

TOKENIZER = NucleotideTokenizer()


@pytest.fixture(params=["fasta", "store"])
def genome(request: pytest.FixtureRequest, tmp_path: Path) -> Genome:
    rng = np.random.default_rng(0)
    letters = rng.choice(list("ACGTN"), 300, p=[0.24, 0.24, 0.24, 0.24, 0.04])
    masked = np.repeat(rng.random(30) < 0.5, 10)
    text = "".join(letter.lower() if low else letter for letter, low in zip(letters, masked))
    (tmp_path / "toy.fa").write_text(f">x\n{text}\n>plain\n{'ACGT' * 20}\n")
    if request.param == "store":
        build(tmp_path / "toy.fa", tmp_path / "toy.zarr")
    return genossm.genome.open(tmp_path / ("toy.fa" if request.param == "fasta" else "toy.zarr"))


def test_weights_follow_the_case_of_each_letter_as_it_is_read(genome: Genome) -> None:
    weights = SoftMaskWeights(genome, 0.25)
    for start, end in ((0, 300), (7, 64), (120, 121)):
        text = genome.fetch(Interval("x", start, end), uppercase=False).decode()
        for strand, read in (("+", text), ("-", reverse_complement(text))):
            found = weights.along(Interval("x", start, end, strand), len(text) + 3)
            assert found.tolist() == [0.25 if letter.islower() else 1.0 for letter in read] + [1.0] * 3
    assert set(weights.along(Interval("plain", 0, 80), 80).tolist()) == {1.0}


def test_batches_weigh_the_targets_of_both_objectives(genome: Genome) -> None:
    plan = TiledWindows(genome, [Interval("x", 0, 300)], 60, max_n_fraction=1.0, reverse_complement=True, seed=1)
    data = WindowDataset(genome, plan, TOKENIZER, SoftMaskWeights(genome, 0.5))
    items = [data[n] for n in range(10)]
    assert {item.interval.strand for item in items} == {"+", "-"}
    for collate in (CausalCollator(TOKENIZER), MaskedCollator(TOKENIZER, Masking(0.3), 0)):
        batch = collate(items)
        assert batch.weights is not None
        total = 0.0
        for row, item in enumerate(items):
            text = genome.fetch(item.interval, uppercase=False).decode()
            known = batch.targets[row] != IGNORE
            expected = torch.tensor([0.5 if letter.islower() else 1.0 for letter in text])
            assert torch.equal(batch.weights[row], expected)
            total += float(expected[known].sum())
        assert float(batch.total_weight()) == total
        first, *_, last = batch.split(3)
        assert first.weights is not None
        assert torch.equal(first.weights, batch.weights[:3])
        assert last.weights is not None
        assert torch.equal(last.weights, batch.weights[9:])
        middle = batch.stretch(slice(10, 20))
        assert middle.weights is not None
        assert torch.equal(middle.weights, batch.weights[:, 10:20])
        assert batch.to("cpu").weights is not None


def test_a_weight_of_one_leaves_batches_as_they_are_and_validation_has_none(genome: Genome) -> None:
    def make(weight: float) -> GenomeDataModule:
        train, validation = (TiledWindows(genome, [Interval("x", 0, 300)], 60, max_n_fraction=1.0) for _ in range(2))
        return GenomeDataModule(
            genome, TOKENIZER, train, validation, batch=2, validation_batch=2, soft_mask_weight=weight
        )

    batch, light = next(iter(make(1.0).train_dataloader())), next(iter(make(0.1).train_dataloader()))
    assert batch.weights is None
    assert int(batch.total_weight()) == int((batch.targets != IGNORE).sum())
    assert light.weights is not None
    assert torch.equal(light.input_ids, batch.input_ids)
    assert torch.equal(light.targets, batch.targets)
    assert next(iter(make(0.1).val_dataloader())).weights is None


def test_a_genome_without_soft_mask_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "upper.fa").write_text(f">x\n{'ACGT' * 50}\n")
    with genossm.genome.open(tmp_path / "upper.fa") as upper:
        data = WindowDataset(upper, TiledWindows(upper, [Interval("x", 0, 200)], 50), TOKENIZER)
        assert not caplog.records
        caplog.set_level(logging.WARNING)
        data.soft_mask = SoftMaskWeights(upper, 0.1)
        items = [data[n] for n in range(4)]
    assert [record.getMessage() for record in caplog.records] == [
        "soft_mask_weight is 0.1, but upper.fa has no soft-masked (lower-case) base, so every base counts alike. "
        "Take a reference that is soft-masked."
    ]
    assert all(item.weights is not None and set(item.weights.tolist()) == {1.0} for item in items)

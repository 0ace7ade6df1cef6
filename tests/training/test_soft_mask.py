"""What a weight on soft-masked bases does to a step, and to a run."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genossm.core.errors import ConfigError
from genossm.data.batch import IGNORE, Batch
from genossm.models import SequenceModel, StackConfig
from genossm.sequence.interval import Interval
from genossm.training import TrainConfig, train
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.module import LanguageModelTraining, target_nats

Make = Callable[..., TrainConfig]


def make_batch(weights: torch.Tensor | None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, 11, (4, 12), generator=generator)
    targets = torch.randint(4, (4, 12), generator=generator)
    targets[0, :5] = IGNORE
    return Batch(ids, targets, tuple(Interval("x", 12 * n, 12 * n + 12) for n in range(4)), weights=weights)


def gradients(batch: Batch, micro_batch: int | None = None) -> tuple[float, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = SequenceModel(StackConfig(d_model=8, n_layer=2, d_state=4))
    module = LanguageModelTraining(
        model, OptimizerConfig(), ScheduleConfig(), total_steps=10, gradient_clip=None, micro_batch=micro_batch
    )
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step(batch, 0).backward()
    module.configure_gradient_clipping(optimizer)
    return module.last_bits, [p.grad for p in model.parameters() if p.grad is not None]


def test_the_sum_counts_each_target_by_its_weight() -> None:
    logits = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, IGNORE, 3], [2, 1, IGNORE]])
    weights = torch.tensor([[0.1, 5.0, 1.0], [0.5, 0.0, 7.0]])
    one_by_one = [
        float(target_nats(logits[r : r + 1, c : c + 1], targets[r : r + 1, c : c + 1], (7, 8, 9, 10))[0])
        for r in range(2)
        for c in range(3)
    ]
    nats, count = target_nats(logits, targets, (7, 8, 9, 10), weights)
    assert float(nats) == pytest.approx(sum(n * w for n, w in zip(one_by_one, weights.reshape(-1).tolist())))
    assert int(count) == 4


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_bases_of_weight_zero_are_no_targets_and_a_common_weight_changes_nothing(micro_batch: int | None) -> None:
    plain = make_batch(None)
    dropped = torch.zeros(4, 12).bernoulli(0.5, generator=torch.Generator().manual_seed(1))
    cases = (
        (replace(plain, weights=torch.full((4, 12), 0.25)), plain),
        (replace(plain, weights=dropped), replace(plain, targets=torch.where(dropped > 0, plain.targets, IGNORE))),
    )
    for weighted, expected in cases:
        bits, found = gradients(weighted, micro_batch)
        wanted_bits, wanted = gradients(expected, micro_batch)
        assert bits == pytest.approx(wanted_bits, rel=1e-6)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def rows(directory: Path, column: str) -> list[str]:
    with open(directory / "metrics.csv", newline="") as handle:
        return [row[column] for row in csv.DictReader(handle) if row[column]]


def test_a_run_learns_from_the_weights_and_is_validated_without(make_config: Make, tmp_path: Path) -> None:
    fasta = tmp_path / "toy.fa"
    letters = fasta.read_text().splitlines()[1]
    fasta.write_text(f">toy\n{letters[:1200].lower()}{letters[1200:]}\n")
    found = {}
    for weight in (1.0, 0.1):
        directory = tmp_path / f"run{weight}"
        config = make_config(data__soft_mask_weight=weight, output__directory=str(directory), run__max_steps=4)
        train(config)
        found[weight] = (rows(directory, "train_bits_per_base"), rows(directory, "validation_bits_per_base"))
    assert found[0.1] != found[1.0]
    # Before anything is learnt the untrained model needs 2 bits on either kind of base, whatever they weigh.
    assert float(found[0.1][0][0]) == pytest.approx(float(found[1.0][0][0]), abs=0.05)
    with pytest.raises(ConfigError, match=r"data: soft_mask_weight is 1\.5"):
        make_config(data__soft_mask_weight=1.5)

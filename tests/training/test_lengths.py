"""Runs whose windows grow: counted, logged, resumed in and between stages, estimated by the largest."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import genossm.genome
import genossm.training.fit as fit_module
from genossm.core.errors import ConfigError
from genossm.data.lengths import Stage
from genossm.models import load
from genossm.training import TrainConfig, train
from genossm.training.estimate import estimate
from genossm.training.reading import plan_windows

Make = Callable[..., TrainConfig]
CPU = torch.device("cpu")
STAGES = [{"window": 8, "steps": 5}, {"window": 16, "steps": 3, "micro_batch": 3}]


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def numbers(directory: Path) -> list[tuple[str, ...]]:
    """The log without what the clock wrote."""
    kept = ("step", "tokens", "window", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    return [tuple(row[column] for column in kept) for row in rows(directory)]


class Interrupt(Callback):
    """Dies at the start of a step, as a killed process would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


def test_stages_keep_the_bases_of_a_step_unless_they_say_otherwise(make_config: Make) -> None:
    stages = [*STAGES, {"window": 48, "steps": 2, "batch": 6}]
    config = make_config(data__lengths=stages, data__micro_batch=2, run__max_steps=12)
    assert config.lengths.stages == (Stage(8, 16, 8, 5), Stage(16, 8, 3, 3), Stage(48, 6, 1, 2), Stage(32, 4, 2))
    assert config.lengths.tokens(12) == 10 * 128 + 2 * 288
    assert config.total_steps == 12
    counted = make_config(run__max_steps=None, run__max_tokens=8 * 128 + 288 + 1)
    assert counted.total_steps == 8 + 2


def test_passes_are_counted_in_bases(make_config: Make) -> None:
    config = make_config(data__lengths=STAGES, data__micro_tokens=70)
    assert [stage.micro_batch for stage in config.lengths.stages] == [8, 3, 2]
    # A window in segments takes no more than its segment; of shorter windows more are read.
    segments = make_config(data__micro_tokens=24, data__segment=12, data__lengths=STAGES[:1])
    assert [stage.micro_batch for stage in segments.lengths.stages] == [3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [{"window": 48, "steps": 2}]}, "lengths[0]: windows of 48 bases do not add up to the 128 bases"),
        ({"lengths": [{"window": 8}]}, "data.lengths[0].steps is missing"),
        ({"lengths": [{"window": 8, "steps": 0}]}, "data.lengths[0]: steps is 0"),
        ({"lengths": [{"window": 8, "step": 3}]}, "data.lengths[0].step is not a key of StageConfig. Did you mean 'st"),
        ({"micro_tokens": 31}, "micro_tokens is 31, less than one window of 32 bases (window)"),
        (
            {"micro_tokens": 40, "lengths": [{"window": 64, "steps": 1}]},
            "micro_tokens is 40, less than one window of 64 bases (lengths[0].window)",
        ),
        ({"micro_tokens": 64, "micro_batch": 2}, "micro_batch and micro_tokens are both given"),
    ],
)
def test_impossible_stages_are_refused(make_config: Make, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_config(**{f"data__{key}": value for key, value in change.items()})


def test_devices_share_the_batch_of_every_stage(make_config: Make) -> None:
    with pytest.raises(ConfigError, match=re.escape("data.lengths[1].batch is 1, which 4 devices")):
        make_config(data__lengths=[STAGES[0], {"window": 128, "steps": 2}], run__devices=4)


def test_the_log_tells_the_window_of_each_step_and_the_bases_read(make_config: Make) -> None:
    config = make_config(data__lengths=STAGES, run__max_steps=12, run__validate_every=6)
    result = train(config)
    found = rows(config.output.directory)
    trained = {int(row["step"]): int(row["window"]) for row in found if row["train_bits_per_base"]}
    # Every second step has a row, and the last one of a stage.
    assert trained == {2: 8, 4: 8, 5: 8, 6: 16, 8: 16, 10: 32, 12: 32}
    assert all(int(row["tokens"]) == int(row["step"]) * 128 for row in found)
    assert result.tokens == 12 * 128
    assert [row["step"] for row in found if row["validation_bits_per_base"]] == ["6", "12"]


@pytest.mark.parametrize("stop", [3, 5, 7, 8, 10])
def test_a_run_interrupted_in_or_between_stages_goes_on(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    config = make_config(data__lengths=STAGES, run__checkpoint_every=1, run__log_every=1)
    directory = config.output.directory
    whole = directory.with_name("whole")
    train(config)
    shutil.move(directory, whole)
    build = fit_module.build_trainer
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "build_trainer", lambda config, calls: build(config, [*calls, Interrupt(stop)]))
        with pytest.raises(InterruptedError):
            train(config)
    train(config, resume=True)
    assert numbers(directory) == numbers(whole)
    assert load(directory / "model").digest() == load(whole / "model").digest()


def test_validation_reads_the_same_windows_whatever_the_stages(make_config: Make) -> None:
    plain, staged = make_config(), make_config(data__lengths=STAGES, data__validation_window=None)
    with genossm.genome.open(plain.genome.path) as genome:
        long = plan_windows(plain, genome)[1]
        training, validation = plan_windows(staged, genome)
    assert [len(long.interval(n)) for n in range(6)] == [100] * 6
    assert [len(validation.interval(n)) for n in range(18)] == [32] * 18
    assert [len(training.interval(n)) for n in (0, 79, 80, 103, 104)] == [8, 8, 16, 16, 32]


def test_stages_belong_to_what_a_run_is(make_config: Make) -> None:
    train(make_config(run__max_steps=2, data__lengths=STAGES))
    with pytest.raises(ConfigError, match=r"other values of data\.lengths"):
        train(make_config(data__lengths=STAGES[:1]), resume=True)


def test_a_run_of_an_earlier_version_lacks_keys_that_have_defaults(make_config: Make) -> None:
    config = make_config(run__max_steps=2)
    train(config)
    last = config.output.directory / "checkpoints/last.ckpt"
    content = torch.load(last, weights_only=True)
    for key in ("lengths", "micro_tokens", "short_regions"):
        del content["callbacks"]["Checkpoints"]["config"]["data"][key]
    torch.save(content, last)
    assert train(make_config(run__max_steps=4), resume=True).steps == 4


def test_the_estimate_is_that_of_the_stage_that_takes_most(make_config: Make) -> None:
    config = make_config(data__micro_batch=1, data__lengths=[{"window": 8, "steps": 5, "micro_batch": 16}])
    found = estimate(config, CPU)
    assert (found.batch, found.window, found.where) == (16, 8, "data.lengths[0]")
    assert "The stage that takes most is data.lengths[0]." in found.lines()
    assert found.peak == estimate(make_config(data__window=8, data__batch=16, data__micro_batch=16), CPU).peak
    small = [{"window": 4, "steps": 5, "micro_batch": 1}]
    last = estimate(make_config(data__window=32, data__batch=4, data__micro_batch=4, data__lengths=small), CPU)
    assert last.where == "data"

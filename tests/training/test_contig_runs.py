"""Runs along whole contigs, and in segments, from a configuration: they learn, validate, stop and go on."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import genossm.genome
import genossm.training.fit as fit_module
from genossm.core.errors import ConfigError, IntervalError
from genossm.core.strict import from_mapping
from genossm.inference import log_probabilities
from genossm.models import load
from genossm.sequence.interval import Interval
from genossm.training import TrainConfig, train

Make = Callable[..., TrainConfig]


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def numbers(directory: Path) -> list[tuple[str, ...]]:
    kept = ("step", "tokens", "learning_rate", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    return [tuple(row[column] for column in kept) for row in rows(directory)]


def states(directory: Path) -> Any:
    return torch.load(directory / "checkpoints/last.ckpt", weights_only=True)["carried"]


@pytest.fixture
def contigs(mapping: dict[str, Any]) -> dict[str, Any]:
    """Three rows that walk along 2,400 bases in segments of 100: an epoch is eight steps."""
    mapping["data"] = {"sampling": "contigs", "window": 100, "batch": 3, "validation_window": 70}
    return mapping


@pytest.mark.parametrize(
    "changes",
    [{"micro_batch": 2}, {"segment": 40, "carry_gradients": True}],
    ids=["parts", "segments"],
)
def test_a_run_that_stops_in_the_middle_of_a_contig_goes_on_bit_for_bit(
    contigs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    contigs["data"] |= changes
    contigs["run"] |= {"checkpoint_every": 1, "log_every": 1}
    config = from_mapping(TrainConfig, contigs)
    directory = config.output.directory
    whole = directory.with_name("whole")
    train(config)
    shutil.move(directory, whole)

    class Interrupt(Callback):
        def on_train_batch_start(
            self,
            trainer: Trainer,
            pl_module: LightningModule,  # noqa: ARG002
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            if trainer.global_step == 5:
                raise InterruptedError

    build = fit_module.build_trainer
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Interrupt()]))
    with pytest.raises(InterruptedError):
        train(config)
    # Five segments have been read of each row, or fewer if a contig began since.
    assert max(states(directory)["positions"].tolist()) == 500
    monkeypatch.setattr(fit_module, "build_trainer", build)
    train(config, resume=True)
    assert numbers(directory) == numbers(whole)
    assert load(directory / "model").digest() == load(whole / "model").digest()
    for left, right in zip(states(directory)["layers"], states(whole)["layers"], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(left, right))


def test_validation_reads_a_region_whole_whatever_its_segments(contigs: dict[str, Any], tmp_path: Path) -> None:
    contigs["run"] |= {"max_steps": 4}
    found = []
    for window in (600, 70):
        contigs["data"] |= {"validation_window": window}
        contigs["output"]["directory"] = str(tmp_path / str(window))
        found.append(train(config := from_mapping(TrainConfig, contigs)).validation_bits)
    model = load(tmp_path / "600" / "model")
    with genossm.genome.open(config.genome.path) as genome:
        ids = model.encode(genome.fetch(Interval("toy", 2400, 3000)), add_bos=True)
    with torch.no_grad():
        ln_p = log_probabilities(model(ids[:, :-1]).logits, dtype=torch.float64)
    expected = -ln_p[0].gather(1, ids[0, 1:, None] - model.tokenizer.base_ids[0]).mean() / math.log(2.0)
    assert found == pytest.approx([float(expected)] * 2, abs=1e-5)


def test_segments_of_random_windows_learn_what_whole_windows_do(mapping: dict[str, Any], tmp_path: Path) -> None:
    mapping["run"] |= {"log_every": 1, "max_steps": 6}
    found = {}
    for name, change in {
        "whole": {},
        "carried": {"segment": 10, "carry_gradients": True},
        "cut": {"segment": 10},
    }.items():
        mapping["data"] = {"window": 32, "batch": 4, "validation_window": 100, **change}
        mapping["output"]["directory"] = str(tmp_path / name)
        train(from_mapping(TrainConfig, mapping))
        found[name] = [row for row in rows(tmp_path / name) if row["train_bits_per_base"]]
    for whole, carried in zip(found["whole"], found["carried"], strict=True):
        assert float(carried["train_bits_per_base"]) == pytest.approx(float(whole["train_bits_per_base"]), abs=2e-4)
        assert float(carried["gradient_norm"]) == pytest.approx(float(whole["gradient_norm"]), rel=2e-3)
    first, cut = found["whole"][0], found["cut"][0]
    assert float(cut["train_bits_per_base"]) == pytest.approx(float(first["train_bits_per_base"]), abs=1e-5)
    assert float(cut["gradient_norm"]) != pytest.approx(float(first["gradient_norm"]), rel=1e-4)


def test_a_walk_learns(contigs: dict[str, Any]) -> None:
    contigs["run"] |= {"max_steps": 48, "validate_every": 8}
    result = train(from_mapping(TrainConfig, contigs))
    bits = [
        float(row["validation_bits_per_base"]) for row in rows(result.model.parent) if row["validation_bits_per_base"]
    ]
    assert result.validation_bits < 1.95
    assert bits[-1] < bits[0]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "model",
            {"direction": "bidirectional", "objective": "masked"},
            "data.sampling is 'contigs', but model.direct",
        ),
        ("data", {"carry_gradients": True}, "carry_gradients is set and segment is None"),
        ("data", {"carry_gradients": True, "segment": 100}, "wanted a segment shorter than the window of 100 bases"),
        ("data", {"lengths": [{"window": 50, "steps": 2}]}, "lengths is given, but sampling is 'contigs'"),
        ("data", {"segment": 0}, "segment is 0"),
        ("run", {"devices": 3, "context_parallel": 3}, "states come from the step before or from the other devices"),
    ],
)
def test_what_cannot_carry_states_is_refused(
    contigs: dict[str, Any], section: str, change: dict[str, Any], message: str
) -> None:
    contigs[section] |= change
    with pytest.raises(ConfigError, match=message):
        from_mapping(TrainConfig, contigs)


def test_segments_need_a_causal_model_too(masked: dict[str, Any]) -> None:
    masked["data"]["segment"] = 8
    with pytest.raises(ConfigError, match=r"data\.segment is given, but model\.direction is 'bidirectional'"):
        from_mapping(TrainConfig, masked)


def test_too_many_rows_for_a_walk_are_refused_before_anything_is_written(contigs: dict[str, Any]) -> None:
    contigs["data"] |= {"batch": 30}
    config = from_mapping(TrainConfig, contigs)
    with pytest.raises(IntervalError, match="30 rows cannot walk 24 segments"):
        train(config)
    assert not config.output.directory.exists()

"""Warnings that come before NaN does, and figures that are what they say."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.core.errors import NumericsError
from genossm.core.strict import from_mapping
from genossm.data.batch import Batch
from genossm.models import SequenceModel, StackConfig
from genossm.nn.watching import watching_states
from genossm.sequence.interval import Interval
from genossm.training import TrainConfig, train
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.module import LanguageModelTraining
from genossm.training.watchers.alarms import Alarms
from genossm.training.watchers.measures import Measures
from genossm.training.watchers.usual import Episode, Usual

Make = Callable[..., TrainConfig]
Change = Callable[[LanguageModelTraining, int], None]


def test_usual_knows_noise_from_a_jump() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = (2.0 + 0.05 * torch.randn(1000, generator=generator)).tolist()
    usual = Usual(0.1)
    assert not any(usual.add(value) for value in noise)
    assert usual.mean == pytest.approx(2.0, abs=0.03)
    assert math.sqrt(usual.variance) == pytest.approx(0.05, rel=0.3)
    before = usual.mean
    assert usual.add(2.5)
    # A jump hardly moves what is usual; a new level becomes usual in time.
    assert usual.mean == pytest.approx(before, abs=0.01)
    assert sum(usual.add(2.5) for _ in range(500)) < 100
    assert not usual.add(math.nan)
    assert usual.add(math.inf)
    assert math.isfinite(usual.mean)


def test_usual_waits_until_it_has_seen_enough() -> None:
    usual = Usual(0.1, patience=5)
    assert not any(usual.add(value) for value in (1.0, 9.0, 1.0, 9.0, 1.0))
    assert usual.add(100.0)


def test_usual_goes_on_from_its_state() -> None:
    first, second = Usual(0.1), Usual(0.1)
    values = [2.0, 2.1, 1.9] * 10
    for value in values:
        first.add(value)
    second.load_state_dict(first.state_dict())
    assert second.limit == first.limit
    assert (first.add(2.05), first.mean) == (second.add(2.05), second.mean)


def test_an_episode_is_told_once() -> None:
    episode = Episode(calm=2)
    looks = [False, True, True, False, True, False, False, True, False, False, False, True]
    told = [number for number, wrong in enumerate(looks) if episode.begins(wrong)]
    # One calm look between two bad ones is no end of an episode; two are.
    assert told == [1, 7, 11]


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_measures_are_norms_of_the_gradients_and_states(direction: str) -> None:
    torch.manual_seed(0)
    both_ways = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}
    model = SequenceModel(StackConfig(8, 2, d_state=4, **(both_ways if direction == "bidirectional" else {})))  # type: ignore[arg-type]
    module = LanguageModelTraining(model, OptimizerConfig(), ScheduleConfig(), total_steps=10)
    ids = torch.randint(7, 11, (3, 20))
    batch = Batch(ids, ids - 7, ())
    module.measures = Measures(model)
    module.training_step(batch, 0).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    module.configure_gradient_clipping(module.configure_optimizers()["optimizer"])

    def norm(*parts: str) -> float:
        found = [g.double().square().sum() for name, g in gradients.items() if all(part in name for part in parts)]
        return float(sum(found)) ** 0.5

    found = module.measured
    for layer in ("0", "1"):
        assert found[f"gradient_norm.{layer}"] == pytest.approx(norm(f"layers.{layer}."), rel=1e-5)
        assert found[f"dt_gradient_norm.{layer}"] == pytest.approx(norm(f"layers.{layer}.", "dt_proj"), rel=1e-5)
    parts = [value for name, value in found.items() if name.startswith("gradient_norm.")]
    assert math.hypot(*parts) == pytest.approx(module.last_norm, rel=1e-5)
    if direction == "causal":
        state = model(ids, return_state=True).state
        assert state is not None
        for layer, entry in enumerate(state.layers):
            expected = float(entry.scan.detach().double().square().mean().sqrt())
            assert found[f"state_rms.{layer}"] == pytest.approx(expected, rel=1e-5)
    else:
        assert all(found[f"state_rms.{layer}"] > 0 for layer in "01")
    # Nobody asked for another step: nothing is measured, and nothing is kept.
    module.measures = None
    module.training_step(batch, 0).backward()
    module.configure_gradient_clipping(module.configure_optimizers()["optimizer"])
    assert module.measured == {}


def test_states_are_seen_only_while_somebody_looks() -> None:
    model = SequenceModel(StackConfig(8, 2, d_state=4))
    with watching_states() as outer:
        with watching_states() as inner:
            model(model.encode("ACGT"))
        assert not outer
        model(model.encode("ACGTA"))
    model(model.encode("ACGTAC"))
    for found in (inner, outer):
        assert [len(states) for states in found.values()] == [1, 1]
        assert not any(state.requires_grad for states in found.values() for state in states)


def steps_with(
    change: Change, caplog: pytest.LogCaptureFixture, steps: int = 120
) -> tuple[list[str], list[dict[str, float]]]:
    """Train on random windows with a change before each step, and give the warnings and the figures."""
    torch.manual_seed(0)
    module = LanguageModelTraining(
        SequenceModel(StackConfig(8, 2, d_state=4)),
        OptimizerConfig(),
        ScheduleConfig(kind="constant"),
        total_steps=None,
        gradient_clip=None,
    )
    optimizer = module.configure_optimizers()["optimizer"]
    alarms, measures, figures = Alarms(), Measures(module.model), []
    generator = torch.Generator().manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="genossm"):
        for step in range(1, steps + 1):
            with torch.no_grad():
                change(module, step)
            bases = torch.randint(4, (4, 33), generator=generator)
            windows = tuple(Interval("toy", 100 * row, 100 * row + 33) for row in range(4))
            module.measures = measures if step % 2 == 0 else None
            module.training_step(Batch(bases[:, :-1] + 7, bases[:, 1:], windows), 0).backward()
            module.configure_gradient_clipping(optimizer)
            optimizer.step()
            alarms.look(step, module.last_bits, module.last_norm, module.measured, module.last_intervals)
            figures.append(module.measured)
    return [record.message for record in caplog.records if record.name.startswith("genossm.training")], figures


def test_a_quiet_run_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    warnings, figures = steps_with(lambda *_: None, caplog)
    assert warnings == []
    assert [bool(measured) for measured in figures] == [False, True] * 60


def test_step_sizes_that_run_away_are_warned_of_before_the_nan(caplog: pytest.LogCaptureFixture) -> None:
    def explode(module: LanguageModelTraining, step: int) -> None:
        if step > 60:
            module.model.get_parameter("backbone.layers.1.mixer.dt_proj.weight").mul_(-3.0)

    with pytest.raises(NumericsError):
        steps_with(explode, caplog, steps=400)
    warnings = [record.message for record in caplog.records]
    assert re.match(r"Step \d+: the (states|gradients of the step sizes \(dt_proj\)) of block 1 have", warnings[0])
    assert "lower optimizer.learning_rate or run.gradient_clip" in warnings[0]
    # Once an episode, though it went on until the numbers ended.
    assert 1 <= len(warnings) <= 6


def test_gradients_of_step_sizes_are_warned_of_by_their_block(caplog: pytest.LogCaptureFixture) -> None:
    def steepen(module: LanguageModelTraining, step: int) -> None:
        # Only the gradients of one block's step sizes grow.
        if step == 60:
            weight = module.model.get_parameter("backbone.layers.1.mixer.dt_proj.weight")
            weight.register_hook(lambda gradient: gradient * 1e3)

    warnings, _ = steps_with(steepen, caplog)
    found = [line for line in warnings if "step sizes (dt_proj)" in line]
    assert len(found) == 1
    assert found[0].startswith("Step 60: the gradients of the step sizes (dt_proj) of block 1 have the norm ")


def test_a_state_that_grows_is_warned_of_by_its_block(caplog: pytest.LogCaptureFixture) -> None:
    def pour(module: LanguageModelTraining, step: int) -> None:
        if step > 60:
            # A little more goes into the states at each step.
            module.model.get_parameter("backbone.layers.0.mixer.conv1d.weight").mul_(1.1)

    warnings, figures = steps_with(pour, caplog)
    found = [line for line in warnings if "the states of block 0 have a root mean square of " in line]
    assert len(found) == 1
    step = int(found[0].removeprefix("Step ").partition(":")[0])
    assert 60 < step < 100
    assert figures[step - 1]["state_rms.0"] > 10 * figures[59]["state_rms.0"]


def test_a_loss_spike_is_told_once_with_its_windows(caplog: pytest.LogCaptureFixture) -> None:
    kept: dict[str, torch.Tensor] = {}

    def spoil(module: LanguageModelTraining, step: int) -> None:
        weight = module.model.backbone.embedding.weight
        if step == 60:
            kept["weight"] = weight.clone()
            weight.copy_(3.0 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        if step == 63:
            weight.copy_(kept["weight"])

    warnings, _ = steps_with(spoil, caplog, steps=90)
    spikes = [line for line in warnings if "the loss is" in line]
    assert len(spikes) == 1
    assert spikes[0].startswith("Step 60: the loss is ")
    assert "the step read toy:1-33 and 3 more windows." in spikes[0]


def watched(config: TrainConfig) -> list[dict[str, str]]:
    with open(config.output.directory / "watch.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_run_writes_its_figures_and_goes_on_after_a_resume(
    make_config: Make, mapping: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"run__watch_every": 2, "run__max_steps": 10, "schedule__kind": "constant"}
    whole = make_config(**changes)
    train(whole)
    found = watched(whole)
    assert [int(row["step"]) for row in found] == [2, 4, 6, 8, 10]
    assert set(found[0]) == {"step", "gradient_norm.others"} | {
        f"{kind}.{layer}" for kind in ("gradient_norm", "dt_gradient_norm", "state_rms") for layer in (0, 1)
    }
    assert all(float(value) > 0 for row in found for value in row.values())
    mapping["output"]["directory"] = str(tmp_path / "parts")
    train(make_config(**changes | {"run__max_steps": 5}))
    train(make_config(**changes), resume=True)
    assert watched(from_mapping(TrainConfig, mapping)) == found
    assert [record for record in caplog.records if record.levelno >= logging.WARNING and "Step" in record.message] == []


def test_watching_can_be_left_out(make_config: Make) -> None:
    config = make_config(run__watch_every=None, run__max_steps=2)
    train(config)
    assert not (config.output.directory / "watch.csv").exists()

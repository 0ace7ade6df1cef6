"""The estimate of a training step against the step itself, measured."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from genossm.cli.train import command
from genossm.models import SequenceModel
from genossm.nn import StackConfig, fused
from genossm.training.config import load_train_config
from genossm.training.estimate import MemoryEstimate, estimate, measure_step

CPU = torch.device("cpu")
DEMO = Path(__file__).parents[2] / "configs" / "train" / "demo.yaml"
MEASURE = """
import json, sys, torch
from genossm.models import SequenceModel
from genossm.nn import StackConfig, fused

def step(model, length):
    ids = torch.randint(7, 11, (1, length))
    logits = model(ids).logits[..., 7:11].reshape(-1, 4).float()
    torch.nn.functional.cross_entropy(logits, (ids - 7).reshape(-1)).backward()
    model.zero_grad()

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

model = SequenceModel(StackConfig(**json.loads(sys.argv[1])))
step(model, 64)  # kernels are compiled or loaded
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the high-water mark starts anew
step(model, int(sys.argv[2]))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_within_a_tenth_of_the_measured_peak() -> None:
    choices, length = {"d_model": 64, "n_layer": 3}, 98_304
    command = [sys.executable, "-c", MEASURE, json.dumps(choices), str(length)]
    # Freed memory goes back at once, so that the high-water mark is what lived and not what glibc kept.
    variables = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    measured = int(subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout)
    found = measure_step(StackConfig(**choices), 1, length, CPU)  # type: ignore[arg-type]
    assert found.peak == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("choices", [{}, {"direction": "bidirectional", "objective": "masked"}])
def test_grows_with_the_window_and_not_with_time_or_memory(choices: dict[str, str]) -> None:
    config = StackConfig(256, 8, **choices)  # type: ignore[arg-type]
    short, long, longer = (measure_step(config, 1, 1 << exponent, CPU) for exponent in (16, 17, 18))
    assert longer.peak - long.peak == pytest.approx(2 * (long.peak - short.peak), rel=1e-3)
    assert measure_step(config, 4, 1 << 16, CPU).activations == pytest.approx(longer.activations, rel=1e-3)
    # A megabase of this model would not fit on the machine that counts it.
    assert measure_step(config, 1, 1 << 20, CPU).peak > 40e9


def test_counts_parameters_and_what_the_forward_pass_keeps() -> None:
    config = StackConfig(32, 2)
    found = measure_step(config, 2, 1024, CPU)
    assert found.parameters == 4 * SequenceModel(config).num_parameters()
    assert found.parameters < found.activations < found.peak
    mixed = measure_step(config, 2, 1024, CPU, torch.bfloat16)
    assert found.activations / 2 < mixed.activations < found.activations


def test_what_is_recomputed_is_not_kept() -> None:
    config = StackConfig(64, 4)
    kept = {
        level: measure_step(config, 2, 1 << 16, CPU, recompute=level).activations
        for level in ("nothing", "cheap", "projections", "auto")
    }
    assert kept["projections"] < 0.6 * kept["nothing"]
    assert kept["projections"] < kept["cheap"] == kept["auto"] < 0.9 * kept["nothing"]


def test_the_command_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        command, ["--config", str(DEMO), "--estimate", "--set", "data.window=1048576", "--set", "data.batch=4000"]
    )
    assert result.exit_code == 0
    assert result.output.startswith("parameters")
    assert "peak of a step, 4000 x 1,048,576 bases" in result.output
    assert "It does NOT fit. At this batch a window of" in result.output
    assert not list(tmp_path.iterdir())


def test_a_batch_in_parts_takes_what_a_part_takes() -> None:
    whole, parts = (estimate(load_train_config(DEMO, [f"data.micro_batch={size}"]), CPU) for size in ("null", 2))
    assert (whole.batch, parts.batch) == (8, 2)
    assert 3.5 < whole.activations / parts.activations < 4.5


def made_up(room: int | None, **changes: Any) -> MemoryEstimate:
    """A step of 200 bytes a base, and of 280 where a sequence is read in parts."""

    def peak_of(batch: int, window: int, together: int) -> int:
        return 40_000 + batch * -(-window // together) * (200 if together == 1 else 280)

    known = {"parameters": 10_000, "gradients": 10_000, "optimizer": 20_000, "activations": 500_000, "peak": 840_000}
    given: Any = {"batch": 4, "window": 1000, "most_together": 300, **known, **changes}
    return MemoryEstimate("cpu", **given, available=room, peak_of=peak_of)


def test_the_verdict_says_what_to_change() -> None:
    assert made_up(840_000).lines()[-1] == "It fits."
    short = made_up(440_000)
    assert short.window_that_fits == 500
    assert short.lines()[-1] == (
        "It does NOT fit. At this batch a window of 500 bases would (data.window), at this window 2 at once "
        "(data.micro_batch), or this step over 3 devices that read together (run.context_parallel)."
    )
    shared = made_up(440_000, together=2, peak=600_000)
    assert shared.devices_that_fit == 3
    assert "a window of 714 bases over 2 devices would (data.window)" in shared.lines()[-1]
    assert "take a smaller model" in made_up(30_000).lines()[-1]
    assert "not known" in made_up(None).lines()[-1]


def test_no_way_is_named_that_leads_nowhere() -> None:
    """A single window too much, stretches shorter than a device may read, and runs whose states are handed on."""
    assert made_up(200_000).lines()[-1] == (
        "It does NOT fit. At this batch a window of 200 bases would (data.window), "
        "or this step over 8 devices that read together (run.context_parallel)."
    )
    assert made_up(200_000, most_together=7).lines()[-1] == (
        "It does NOT fit. At this batch a window of 200 bases would (data.window)."
    )
    windows = ["data.window=8192", "data.validation_window=2300"]
    for given, most in (([], 100), (["data.segment=4096"], 1), (["data.sampling=contigs"], 1)):
        assert estimate(load_train_config(DEMO, [*windows, *given]), CPU).most_together == most


@pytest.mark.parametrize(("recompute", "fewer", "devices"), [("projections", 2, 3), ("auto", 4, 6)])
def test_advised_devices_are_just_enough(
    monkeypatch: pytest.MonkeyPatch, recompute: str, fewer: int, devices: int
) -> None:
    """One device has fused layers, several have not; under 65,536 bases "auto" keeps more for each."""
    monkeypatch.setattr(fused, "DEVICES", frozenset({"cpu"}))

    def over(devices: int) -> MemoryEstimate:
        read = ["data.window=262144", "data.batch=1", "run.precision=bf16", f"run.recompute={recompute}"]
        run = [f"run.devices={devices}", f"run.context_parallel={devices}"]
        return estimate(load_train_config(DEMO, [*read, *run]), CPU)

    whole, room = over(1), over(fewer).peak
    assert dataclasses.replace(whole, available=room).devices_that_fit == fewer
    assert dataclasses.replace(whole, available=room - 1).devices_that_fit == devices
    assert over(devices).peak < room <= over(devices - 1).peak


@pytest.mark.parametrize("name", ["window", "segment"])
def test_advised_lengths_and_batches_fit(name: str) -> None:
    """Also where less is made again of what is shorter."""

    def found(*changes: str) -> MemoryEstimate:
        read = ["data.window=65536", "data.batch=4", *(["data.segment=32768"] if name == "segment" else [])]
        return estimate(load_train_config(DEMO, [*read, *changes]), CPU)

    whole = found()
    for share in (0.8, 0.4):
        short = dataclasses.replace(whole, available=int(share * whole.peak))
        room, length, batch = short.available, short.window_that_fits, short.batch_that_fits
        assert room is not None
        assert length is not None
        assert batch is not None
        assert found(f"data.{name}={length}").peak <= room < found(f"data.{name}={length * 4 // 3}").peak
        assert found(f"data.micro_batch={batch}").peak <= room < found(f"data.micro_batch={batch + 1}").peak


def test_parts_of_a_sequence_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["data.window=131072", "data.batch=1", "run.precision=bf16"]
    shared = [*settings, "run.devices=2", "run.context_parallel=2"]
    plain = [estimate(load_train_config(DEMO, one), CPU).peak for one in (settings, shared)]
    monkeypatch.setattr(fused, "DEVICES", frozenset({"cpu"}))
    found = [estimate(load_train_config(DEMO, one), CPU).peak for one in (settings, shared)]
    assert found[0] < plain[0]
    assert found[1] == plain[1]


def test_devices_that_read_together_hold_a_stretch_each() -> None:
    whole, half, third = (
        estimate(load_train_config(DEMO, ["data.window=100000", "data.batch=2", *settings]), CPU)
        for settings in ([], *([f"run.devices={n}", f"run.context_parallel={n}"] for n in (2, 3)))
    )
    assert (whole.batch, half.batch, half.window) == (2, 2, 100_000)
    assert half.activations / whole.activations == pytest.approx(1 / 2, rel=0.01)
    # The longest of uneven stretches counts.
    assert third.activations / whole.activations == pytest.approx(1 / 3, rel=0.01)
    assert any(line.startswith("peak of a step, 2 x 100,000 bases over 3 devices") for line in third.lines())

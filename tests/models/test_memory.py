"""The estimate of memory: near what a pass takes, and an error before anything is allocated."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from genossm.core.errors import MemoryEstimateError
from genossm.models import SequenceModel, StackConfig
from genossm.models import memory as memory_module
from genossm.models.memory import PassMemoryError, available_bytes, inference_bytes

Make = Callable[..., SequenceModel]

# The high-water mark is reset after a first pass, whose compilation takes memory of its own.
MEASURE = """
import sys, torch
from genossm.models import SequenceModel, StackConfig
from genossm.models.memory import inference_bytes
torch.set_num_threads(1)
choices, length, keep = eval(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3]))
config = StackConfig(64, 3, **choices)
model = SequenceModel(config)
def resident(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
with torch.no_grad():
    model(torch.full((1, 4096), 7), return_hidden_states=keep)
    open("/proc/self/clear_refs", "w").write("5")
    before = resident("VmRSS")
    model(torch.full((1, length), 7, dtype=torch.uint8), return_hidden_states=keep)
print((resident("VmHWM") - before) / inference_bytes(config, 1, length, hidden_states=keep))
"""
BOTH_WAYS = {"direction": "bidirectional", "objective": "masked"}


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark of memory is read from /proc")
@pytest.mark.parametrize(
    ("choices", "keep"),
    [
        ({}, False),
        ({"norm": "layer"}, True),
        (BOTH_WAYS, False),
        ({**BOTH_WAYS, "reverse_complement": "equivariant"}, True),
    ],
)
def test_estimate_is_near_what_a_pass_takes(choices: dict, keep: bool) -> None:
    command = [sys.executable, "-c", MEASURE, repr(choices), "50000", str(int(keep))]
    # Without a heap that keeps what was freed, so that fragments of it do not count.
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert 0.85 < float(done.stdout) < 1.15


def test_estimate_is_linear() -> None:
    config = StackConfig(64, 3)
    one = inference_bytes(config, 1, 1000)
    assert inference_bytes(config, 4, 250) == one
    assert inference_bytes(config, 3, 5000) == 15 * one
    # The residual stream stays in float32 whatever the compute dtype.
    assert one / 2 < inference_bytes(config, 1, 1000, element_size=2) < 0.6 * one


def test_available_memory_is_known_here() -> None:
    available = available_bytes(torch.device("cpu"))
    assert available is not None
    assert 1e7 < available < 1e14
    assert available_bytes(torch.device("meta")) is None


def test_a_length_that_does_not_fit_is_refused_before_it_runs(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr(memory_module, "available_bytes", lambda _: 300_000_000)
    ids = torch.full((2, 1_000_000), 7, dtype=torch.uint8)
    with pytest.raises(MemoryEstimateError) as caught:
        model(ids)
    message = str(caught.value)
    needed = inference_bytes(model.config, 2, 1_000_000)
    assert "2 x 1,000,000 tokens" in message
    assert f"about {needed / 1e9:.1f} GB" in message
    assert "0.3 GB free" in message
    assert "genossm.inference.stream" in message
    fits = int(message.split("at most ")[1].split(" tokens")[0].replace(",", ""))
    assert inference_bytes(model.config, 1, fits) <= 300_000_000


def test_a_length_no_machine_holds_is_refused(make_model: Make) -> None:
    ids = torch.zeros(1, 1, dtype=torch.uint8).expand(1 << 14, 1 << 30)
    with pytest.raises(MemoryEstimateError):
        make_model()(ids)


def test_small_passes_ask_nobody(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.device) -> int:
        raise AssertionError("asked")

    monkeypatch.setattr(memory_module, "available_bytes", fail)
    make_model()(torch.full((1, 16), 7))


@pytest.mark.parametrize(("limit", "expected"), [("max\n", None), ("1000\n", 1000 - 700 + 200)])
def test_control_group_limits_count(monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None) -> None:
    contents = {"memory.max": limit, "memory.current": "700\n", "memory.stat": "anon 1\ninactive_file 200\n"}
    monkeypatch.setattr(memory_module.Path, "read_text", lambda self: contents[self.name])
    assert memory_module._free_by_cgroup() == expected


def test_a_model_that_reads_both_ways_is_not_told_to_hand_states_on(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "available_bytes", lambda _: 300_000_000)
    with pytest.raises(
        MemoryEstimateError, match=r"free\. Take a shorter window or a smaller batch, of at most [0-9,]+"
    ):
        make_model(**BOTH_WAYS)(torch.full((1, 1_000_000), 7, dtype=torch.uint8))


def test_the_error_comes_whole_out_of_another_process(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "available_bytes", lambda _: 300_000_000)
    with pytest.raises(PassMemoryError) as caught:
        make_model()(torch.full((1, 1_000_000), 7, dtype=torch.uint8))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.shortage) == (str(caught.value), caught.value.shortage)

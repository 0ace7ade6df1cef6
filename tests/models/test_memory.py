"""The estimate of memory: near what a pass takes, and an error before anything is allocated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from genossm.core.errors import MemoryEstimateError
from genossm.models import SequenceModel, StackConfig
from genossm.models import memory as memory_module
from genossm.models.memory import available_bytes, inference_bytes

Make = Callable[..., SequenceModel]

MEASURE = """
import resource, sys, torch
from genossm.models import SequenceModel, StackConfig
torch.set_num_threads(1)
model = SequenceModel(StackConfig(64, 3))
keep = sys.argv[2] == "True"
with torch.no_grad():
    model(torch.full((1, 4096), 7), return_hidden_states=keep)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(torch.full((1, int(sys.argv[1])), 7, dtype=torch.uint8), return_hidden_states=keep)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts bytes elsewhere")
@pytest.mark.parametrize("keep", [False, True])
def test_estimate_is_near_what_a_pass_takes(keep: bool) -> None:
    length = 200_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(length), str(keep)], capture_output=True, text=True, check=True
    )
    estimate = inference_bytes(StackConfig(64, 3), 1, length, hidden_states=keep)
    assert 0.7 < int(done.stdout) / estimate < 1.4


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

"""Times the CPU operators, a whole Mamba layer, and its peers in one run; `run.py --device cpu` calls it.

Correctness first: nothing is timed unless float32 errs at most twice as much as the plain loop, and the layer gives
what transformers' gives. Then rounds: every contender runs once a round, so that whatever else the machine does
in between falls on all of them. Rows hold the median and the least of the rounds, in microseconds a token.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.mamba1 import Mamba1
from genossm.nn.state import LayerState
from genossm_kernels import causal_conv1d, selective_scan
from genossm_kernels.testing import cast, conv_inputs, conv_results, excess, scan_inputs, scan_results

D_MODEL, CHANNELS, STATES, TAPS, RANK = 256, 512, 16, 4, 16
# Of the usual Mamba, of the models that are shipped, and of the demo's.
WIDTHS = (TAPS, 16, 24)
PACKAGES = ("torch", "numba", "llvmlite", "transformers")
# Loops over positions in Python are timed up to here. transformers' backward pass takes time and memory that grow with
# the square of the length (a gradient as large as all positions for each of them).
SLOW_LENGTH, SLOW_TRAINING_LENGTH = 2_048, 256

Contender = Callable[[], object]


def measure(*, lengths: list[int], rounds: int, commit: str, output: Path) -> None:
    """Check, time, and append the rows to `output`; leaves with exit code 1 before timing anything that is wrong."""
    complaint = check()
    if complaint:
        sys.exit(f"nothing is timed: {complaint}")
    stamp = environment() | {"commit": commit}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        for row in rows(lengths, rounds):
            file.write(json.dumps(stamp | row) + "\n")
            file.flush()
            print(summary(row), flush=True)


def environment() -> dict[str, Any]:
    """What a figure depends on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
        "python": platform.python_version(),
        "versions": versions,
    }


def cpu_model() -> str:
    """As Linux names it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# --- correctness -------------------------------------------------------------------------------------------------


def check() -> str:
    """Empty if everything that will be timed is right."""
    for regime in ("random", "trained", "extreme"):
        inputs = cast(scan_inputs(regime, batch=2, length=137, channels=72, groups=2, packed=True), torch.float32)
        for reverse in (False, (True, False)):
            found, plain, truth = (
                scan_results(given, backend=backend, reverse=reverse)
                for given, backend in ((inputs, "cpu"), (inputs, "reference"), (wide(inputs), "reference"))
            )
            complaint = excess(found, plain, truth, rounding=2**-23)
            if complaint:
                return f"selective_scan, {regime}, reverse {reverse}: {complaint}"
    for width in WIDTHS:
        inputs = cast(conv_inputs(batch=2, length=137, channels=72, width=width, packed=True), torch.float32)
        found, plain, truth = (
            conv_results(given, backend=backend)
            for given, backend in ((inputs, "cpu"), (inputs, "reference"), (wide(inputs), "reference"))
        )
        complaint = excess(found, plain, truth, rounding=2**-23)
        if complaint:
            return f"causal_conv1d, {width} taps: {complaint}"
    return check_layer()


def check_layer() -> str:
    """Empty if our layer and transformers' agree, with gradients."""
    other = their_layer()
    if other is None:
        return ""
    ours = our_layer()
    ours.load_state_dict(other.state_dict())
    hidden = torch.randn(2, 70, D_MODEL)
    gradients = []
    for call in (lambda x: ours(x)[0], other):
        leaf = hidden.clone().requires_grad_()
        y = call(leaf)
        y.square().sum().backward()
        gradients.append((y.detach(), leaf.grad))
    for left, right in zip(*gradients, strict=True):
        error = ((left - right).norm() / right.norm()).item()
        if not error < 1e-5:
            return f"the layer differs from transformers' by {error:.1e}"
    return ""


def wide(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


# --- contenders --------------------------------------------------------------------------------------------------


def our_layer(backend: str = "cpu") -> Mamba1:
    torch.manual_seed(0)
    return Mamba1(StackConfig(d_model=D_MODEL, n_layer=1, d_state=STATES, d_conv=TAPS, dt_rank=RANK, backend=backend))


def their_layer() -> nn.Module | None:
    """transformers' layer of the same size, None where it is not installed."""
    try:
        from transformers import MambaConfig
        from transformers.models.mamba.modeling_mamba import MambaMixer
    except ImportError:
        return None
    torch.manual_seed(0)
    config = MambaConfig(
        hidden_size=D_MODEL, state_size=STATES, expand=2, conv_kernel=TAPS, time_step_rank=RANK, use_bias=False
    )
    return MambaMixer(config, layer_idx=0)


class Products(nn.Module):
    """The four matrix products of a layer and nothing else: what no operator can be faster than."""

    def __init__(self, layer: Mamba1) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor) -> Tensor:
        x, _ = self.layer.in_proj(hidden).chunk(2, dim=-1)
        step, _, _ = self.layer.x_proj(x).split([RANK, STATES, STATES], dim=-1)
        return self.layer.out_proj(self.layer.dt_proj(step))


def layer_passes(length: int) -> Iterator[tuple[str, dict[str, Contender]]]:
    """Forward without gradients, then forward and backward."""
    hidden = torch.randn(1, length, D_MODEL)
    grad = torch.randn(1, length, D_MODEL)
    ours, other = our_layer(), their_layer()
    calls: dict[str, Any] = {"genossm": lambda hidden: ours(hidden)[0], "matrix products": Products(ours)}
    peers = {} if other is None else {"transformers": other}

    def training(call: Callable[[Tensor], Tensor]) -> Contender:
        return lambda: call(hidden.detach().requires_grad_()).backward(grad)

    forward = calls | (peers if length <= SLOW_LENGTH else {})
    yield "forward", {name: inference(lambda call=call: call(hidden)) for name, call in forward.items()}
    both = calls | (peers if length <= SLOW_TRAINING_LENGTH else {})
    yield "forward+backward", {name: training(call) for name, call in both.items()}


def scan_passes(length: int) -> Iterator[tuple[str, dict[str, Contender]]]:
    """Slices of projections, as the layer has them."""
    projected = torch.randn(1, length, 2 * CHANNELS)
    x, z = projected.chunk(2, dim=-1)
    _, B, C = torch.randn(1, length, RANK + 2 * STATES).split([RANK, STATES, STATES], dim=-1)
    layer = our_layer()
    delta = F.linear(torch.randn(1, length, RANK), layer.dt_proj.weight.detach())
    A, D, bias = -torch.exp(layer.A_log.detach()), layer.D.detach(), layer.dt_proj.bias.detach()
    tensors = (x.contiguous(), delta, A, B.unsqueeze(2), C.unsqueeze(2), D, z, bias)
    backends = ("cpu", "torch") if length <= SLOW_LENGTH else ("cpu",)
    yield from operator_passes(selective_scan, tensors, {backend: {"backend": backend} for backend in backends})


def conv_passes(length: int, width: int) -> Iterator[tuple[str, dict[str, Contender]]]:
    x, _ = torch.randn(1, length, 2 * CHANNELS).chunk(2, dim=-1)
    tensors = (x, torch.randn(CHANNELS, width), torch.randn(CHANNELS))
    yield from operator_passes(causal_conv1d, tensors, {name: {"backend": name} for name in ("cpu", "torch")})


def operator_passes(
    operator: Callable[..., Any], tensors: tuple[Tensor, ...], options: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Contender]]]:
    grad = torch.randn(tensors[0].shape)

    def training(chosen: dict[str, Any]) -> Contender:
        return lambda: operator(*(tensor.detach().requires_grad_() for tensor in tensors), **chosen).backward(grad)

    calls = {name: inference(lambda chosen=chosen: operator(*tensors, **chosen)) for name, chosen in options.items()}
    yield "forward", calls
    yield "forward+backward", {name: training(chosen) for name, chosen in options.items()}


def step_contenders() -> dict[str, Contender]:
    """One token of decoding with the state carried: the two operators, the whole layer, its matrix products."""
    layer = our_layer()
    hidden, x, B = torch.randn(1, 1, D_MODEL), torch.randn(1, 1, CHANNELS), torch.randn(1, 1, 1, STATES)
    state = LayerState(torch.randn(1, TAPS - 1, CHANNELS), torch.randn(1, CHANNELS, STATES))
    A, weight = -torch.exp(layer.A_log.detach()), layer.conv1d.weight.detach().squeeze(1)
    D, bias = layer.D.detach(), layer.dt_proj.bias.detach()
    products = Products(layer)
    return {
        "scan": inference(
            lambda: selective_scan(x, x, A, B, B, D, x, bias, initial_state=state.scan, return_final_state=True)
        ),
        "convolution": inference(
            lambda: causal_conv1d(x, weight, D, initial_state=state.conv, return_final_state=True)
        ),
        "layer": inference(lambda: layer(hidden, state)),
        "matrix products": inference(lambda: products(hidden)),
    }


def inference(call: Callable[[], object]) -> Contender:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


# --- timing ------------------------------------------------------------------------------------------------------


def rows(lengths: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    yield {"case": "compile", "pass": "first call of this version", "seconds": compile_seconds()}
    yield {"case": "step", "pass": "forward", "length": 1, "us": timed(step_contenders(), 1, rounds, calls=200)}
    for length in lengths:
        cases = [("layer", {}, layer_passes(length)), ("selective_scan", {}, scan_passes(length))]
        cases += [("causal_conv1d", {"width": width}, conv_passes(length, width)) for width in WIDTHS]
        for case, about, passes in cases:
            for what, contenders in passes:
                times = timed(contenders, length, rounds)
                yield {"case": case, "pass": what, "length": length, **about, "us": times}


def timed(contenders: dict[str, Contender], tokens: int, rounds: int, calls: int = 1) -> dict[str, dict[str, float]]:
    """Microseconds a token; every contender in every round, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / (calls * tokens) * 1e6)
    return {name: {"median": statistics.median(found[1:]), "least": min(found[1:])} for name, found in times.items()}


def compile_seconds() -> dict[str, float]:
    """What the first call of each float32 kernel costs on a machine that has never seen this version."""
    code = """
import json, torch
from genossm_kernels.causal_conv1d import cpu_kernels as conv
from genossm_kernels.selective_scan.cpu_backward import scan_backward
from genossm_kernels.selective_scan.cpu_forward import scan_forward
from genossm_kernels.selective_scan.cpu_steps import scan_steps
kernels = (scan_forward, scan_backward, scan_steps, conv.conv_forward, conv.conv_backward)
for kernel in kernels:
    kernel.compile(torch.float32)
print(json.dumps({kernel.name: kernel.compile_seconds[torch.float32] for kernel in kernels}))
"""
    with tempfile.TemporaryDirectory() as folder:
        variables = os.environ | {"NUMBA_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def summary(row: dict[str, Any]) -> str:
    if "seconds" in row:
        return "compile " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in row["seconds"].items())
    figures = ", ".join(f"{name} {us['median']:.2f} ({us['least']:.2f})" for name, us in row["us"].items())
    case = row["case"] + (f" {row['width']}" if "width" in row else "")
    return f"{case:16} {row['pass']:16} {row['length']:6}  us a token, median (least): {figures}"

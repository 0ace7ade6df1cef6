"""Times the operators beside their peers in one run: on a GPU against mamba-ssm, on a CPU against transformers.

    python kernels/benchmarks/run.py --commit $(git rev-parse HEAD) [--device cpu]

The CPU's rows are made in `cpu_rows.py`. On a GPU: correctness first, nothing is timed unless outputs and gradients
agree with the definition in float64. Then both sides alternate over the grid, each in the layout it wants. A row a
measurement goes to `results/<gpu>.jsonl`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from genossm_kernels.causal_conv1d import causal_conv1d
from genossm_kernels.selective_scan import selective_scan

STATES = 16
WIDTHS, LENGTHS = (128, 256, 512, 1024, 2048), (2_048, 16_384, 65_536, 262_144, 1_048_576)
SPECIAL_UNIT_PER_CLOCK = 16  # exponentials a clock a multiprocessor, compute capability 9.0
COPY_BYTES_PER_SECOND = 3.02e12
CLOCK = 1.98e9
PACKAGES = ("torch", "cuda-core", "nvidia-cuda-nvrtc", "mamba-ssm")
Tensors = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", required=True, help="the commit that is measured")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="file that rows are added to; results/h100.jsonl or results/cpu.jsonl")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 2_048, 16_384, 65_536], help="CPU only")
    parser.add_argument("--seconds", type=float, default=240.0, help="start no new measurement after this long")
    options = parser.parse_args()
    results = Path(__file__).parent / "results"
    if options.device == "cpu":
        from cpu_rows import measure as measure_cpu

        out = options.out or results / "cpu.jsonl"
        measure_cpu(lengths=options.lengths, rounds=options.repeats, commit=options.commit, output=out)
        return
    check()
    stamp = {
        "commit": options.commit,
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "versions": {name: version for name in PACKAGES if (version := installed(name)) is not None},
    }
    started = datetime.datetime.now()
    with (options.out or results / "h100.jsonl").open("a") as out:
        for row in measurements(options.repeats):
            out.write(json.dumps(stamp | row) + "\n")
            out.flush()
            print(summary(row), flush=True)
            if (datetime.datetime.now() - started).total_seconds() > options.seconds:
                sys.exit("stopped: out of time")


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "2.3.2.post1" if name == "mamba-ssm" and theirs() is not None else None


def theirs() -> Callable[..., Any] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return selective_scan_fn


def check() -> None:
    """Outputs and gradients in bfloat16 against the definition in float64."""
    tensors = inputs(700, 96, "trained")
    exact = gradients({name: tensor.double() for name, tensor in tensors.items()}, "reference")
    for name, found in gradients(tensors, "cuda").items():
        error = ((found.double() - exact[name]).norm() / exact[name].norm()).item()
        if not error < 4e-3:
            sys.exit(f"{name} is off by {error:.1e}: nothing is timed")


def gradients(tensors: Tensors, backend: str) -> Tensors:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = selective_scan(**leaves, backend=backend)
    weight = torch.randn(y.shape, device=y.device, generator=torch.Generator(y.device).manual_seed(1))
    y.backward(weight.bfloat16().to(y.dtype))
    return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def inputs(length: int, channels: int, steps: str, groups: int = 1) -> Tensors:
    """`trained`: steps of 1e-3 to 0.1 by channel, rates 1 to 16, as Mamba begins. `large`: steps near 1."""
    g = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, device="cuda", dtype=torch.bfloat16)

    uniform = torch.rand(channels, generator=g, device="cuda")
    if steps == "trained":
        step = torch.exp(math.log(1e-3) + (math.log(0.1) - math.log(1e-3)) * uniform)
        bias, A = (
            step + torch.log(-torch.expm1(-step)),
            -torch.arange(1.0, STATES + 1, device="cuda").repeat(channels, 1),
        )
    else:
        bias, A = 0.5 * uniform, -0.5 - 0.5 * torch.rand((channels, STATES), generator=g, device="cuda")
    return {
        "u": normal(1, length, channels),
        "delta": normal(1, length, channels) * 0.5,
        "A": A,
        "B": normal(1, length, groups, STATES),
        "C": normal(1, length, groups, STATES),
        "D": torch.randn(channels, generator=g, device="cuda"),
        "z": normal(1, length, channels),
        "delta_bias": bias,
    }


def measurements(repeats: int) -> Iterator[dict[str, Any]]:
    for length in reversed(LENGTHS):
        for channels in WIDTHS:
            for steps in ("trained", "large") if length == LENGTHS[-1] and channels in (256, 512) else ("trained",):
                yield from scan_rows(length, channels, steps, repeats)
    yield convolution_row(LENGTHS[-1], 512, repeats)


def scan_rows(length: int, channels: int, steps: str, repeats: int) -> Iterator[dict[str, Any]]:
    point = {"operator": "selective_scan", "length": length, "channels": channels, "d_state": STATES, "steps": steps}
    tensors = inputs(length, channels, steps)
    other = their_inputs(tensors)
    grad_y = torch.randn_like(tensors["u"])
    call = theirs()
    yield compare(
        point | {"what": "forward", "floor_ms": floor_ms(length, channels)},
        without_gradient(lambda: selective_scan(**tensors, backend="cuda")),
        None if call is None else without_gradient(lambda: call(**other, delta_softplus=True)),
        repeats,
    )
    yield compare(
        point | {"what": "forward+backward"},
        training_step(lambda **t: selective_scan(**t, backend="cuda"), tensors, grad_y),
        None
        if call is None
        else training_step(lambda **t: call(**t, delta_softplus=True), other, grad_y.transpose(1, 2).contiguous()),
        repeats,
    )
    if channels <= 512:
        both = inputs(length, 2 * channels, steps, groups=2)
        yield compare(
            point | {"what": "both directions forward", "floor_ms": floor_ms(length, 2 * channels)},
            without_gradient(lambda: selective_scan(**both, reverse=(False, True), backend="cuda")),
            None if call is None else without_gradient(lambda: flipping(call, other)),
            repeats,
        )


def their_inputs(tensors: Tensors) -> Tensors:
    """mamba-ssm wants (batch, channels, length) and (batch, groups, state, length)."""
    moved = {name: tensors[name].transpose(1, 2).contiguous() for name in ("u", "delta", "z")}
    moved |= {name: tensors[name].permute(0, 2, 3, 1).contiguous() for name in ("B", "C")}
    return tensors | moved


def flipping(call: Callable[..., torch.Tensor], other: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    flipped = {
        name: tensor.flip(-1) if name in ("u", "delta", "z", "B", "C") else tensor for name, tensor in other.items()
    }
    return call(**other, delta_softplus=True), call(**flipped, delta_softplus=True).flip(-1)


def without_gradient(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


def training_step(call: Callable[..., torch.Tensor], tensors: Tensors, grad_y: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        call(**leaves).backward(grad_y)

    return run


def floor_ms(length: int, channels: int) -> float:
    """The larger of moving u, delta, z, y once and of evaluating every decay once on the special function unit."""
    rate = SPECIAL_UNIT_PER_CLOCK * torch.cuda.get_device_properties(0).multi_processor_count * CLOCK
    cells = length * channels
    return 1e3 * max(cells * STATES / rate, (cells * 8 + length * STATES * 4) / COPY_BYTES_PER_SECOND)


def compare(
    row: dict[str, Any], ours: Callable[[], None], mamba: Callable[[], None] | None, repeats: int
) -> dict[str, Any]:
    row["ours"] = measure(ours, repeats)
    if mamba is not None:
        row["mamba_ssm"] = measure(mamba, repeats)
        row["ratio"] = row["mamba_ssm"]["median_ms"] / row["ours"]["median_ms"]
    return row


def measure(call: Callable[[], None], repeats: int) -> dict[str, float]:
    torch.cuda.empty_cache()
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    extra = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"median_ms": statistics.median(times), "least_ms": min(times), "most_ms": max(times), "extra_mib": extra}


def convolution_row(length: int, channels: int, repeats: int) -> dict[str, Any]:
    x = torch.randn((1, length, channels), device="cuda", dtype=torch.bfloat16)
    weight, bias = torch.randn((channels, 4), device="cuda"), torch.randn(channels, device="cuda")
    row = {"operator": "causal_conv1d", "length": length, "channels": channels, "width": 4, "what": "forward+backward"}
    row["forward"] = measure(without_gradient(lambda: causal_conv1d(x, weight, bias, backend="cuda")), repeats)
    tensors = {"x": x, "weight": weight, "bias": bias}
    step = training_step(lambda **t: causal_conv1d(**t, backend="cuda"), tensors, torch.randn_like(x))
    return compare(row | {"floor_ms": 1e3 * 5 * 2 * x.numel() / COPY_BYTES_PER_SECOND}, step, None, repeats)


def summary(row: dict[str, Any]) -> str:
    text = f"{row['operator']} {row['what']:24} {row['channels']:5} x {row['length']:8} {row.get('steps', ''):8}"
    text += f" ours {row['ours']['median_ms']:8.3f} ms {row['ours']['extra_mib']:7.0f} MiB"
    if "ratio" in row:
        other = row["mamba_ssm"]
        text += f"  mamba-ssm {other['median_ms']:8.3f} ms {other['extra_mib']:7.0f} MiB {row['ratio']:6.2f}x"
    return text


if __name__ == "__main__":
    main()

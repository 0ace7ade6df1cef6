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
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from network_rows import network_rows
from norm_rows import norm_rows
from timing import Call, Tensors, compare, compare_replays, gradients_of, summary, training_step, without_gradient

from genossm_kernels.causal_conv1d import causal_conv1d
from genossm_kernels.selective_scan import selective_scan

STATES = 16
WIDTHS = (128, 256, 512, 1024, 2048)
LENGTHS = (2_048, 4_096, 16_384, 65_536, 262_144, 1_048_576)
SHORT = 16_384
SPECIAL_UNIT_PER_CLOCK = 16  # exponentials a clock a multiprocessor, compute capability 9.0
COPY_BYTES_PER_SECOND = 3.02e12
CLOCK = 1.98e9
PACKAGES = ("torch", "cuda-core", "nvidia-cuda-nvrtc", "mamba-ssm", "causal-conv1d")
PARTS = ("scan", "convolution", "norm", "networks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", required=True, help="the commit that is measured")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="file that rows are added to; results/h100.jsonl or results/cpu.jsonl")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 2_048, 16_384, 65_536], help="CPU only")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="GPU only")
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
        for row in measurements(options.parts, options.repeats):
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


def measurements(parts: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    if "networks" in parts:
        yield from network_rows(min(repeats, 5))
    if "scan" in parts:
        for length in reversed(LENGTHS):
            for channels in WIDTHS:
                for steps in ("trained", "large") if length == LENGTHS[-1] and channels in (256, 512) else ("trained",):
                    yield from scan_rows(length, channels, steps, repeats)
    if "convolution" in parts:
        for length, width in ((LENGTHS[-1], 4), (16_384, 4), (LENGTHS[-1], 16), (LENGTHS[-1], 24)):
            yield from convolution_rows(length, 512, width, repeats)
    if "norm" in parts:
        yield from norm_rows(repeats, COPY_BYTES_PER_SECOND)


def scan_rows(length: int, channels: int, steps: str, repeats: int) -> Iterator[dict[str, Any]]:
    point = {"operator": "selective_scan", "length": length, "channels": channels, "d_state": STATES, "steps": steps}
    tensors = inputs(length, channels, steps)
    other = their_inputs(tensors)
    grad_y = torch.randn_like(tensors["u"])
    call = theirs()
    sides: list[tuple[Callable[..., torch.Tensor], Tensors, torch.Tensor]] = [
        (partial(selective_scan, backend="cuda"), tensors, grad_y)
    ]
    if call is not None:
        sides.append((partial(call, delta_softplus=True), other, grad_y.transpose(1, 2).contiguous()))

    def both_sides(prepare: Callable[..., Call]) -> tuple[Call, Call | None]:
        prepared = [prepare(*side) for side in sides]
        return prepared[0], prepared[1] if len(prepared) == 2 else None

    # Short calls are the host's time first of all, which wanders by a third.
    short = length <= SHORT
    times: dict[str, Any] = {"repeats": max(repeats, 25) if short else repeats, "in_turn": short}
    forward = both_sides(lambda call, tensors, _: without_gradient(partial(call, **tensors)))
    yield compare(point | {"what": "forward", "floor_ms": floor_ms(length, channels)}, *forward, **times)
    step = point | {"what": "forward+backward", "floor_ms": floor_ms(length, channels, passes=2)}
    yield compare(step, *both_sides(training_step), **times)
    if short:
        for what, calls in (("forward", forward), ("forward+backward", both_sides(gradients_of))):
            yield compare_replays(point | {"what": f"{what}, a replayed CUDA graph"}, *calls, max(repeats, 9))
    if channels <= 512:
        both = inputs(length, 2 * channels, steps, groups=2)
        yield compare(
            point | {"what": "both directions forward", "floor_ms": floor_ms(length, 2 * channels)},
            without_gradient(lambda: selective_scan(**both, reverse=(False, True), backend="cuda")),
            None if call is None else without_gradient(lambda: flipping(call, other)),
            **times,
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


def floor_ms(length: int, channels: int, passes: int = 1) -> float:
    """Exponentials evaluated once a pass, or what is in bfloat16 moved once: the larger.

    passes: 2 with the backward one, which evaluates them again, reads four activations and writes three.
    """
    elements = length * channels
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    exponentials = passes * elements * STATES / (SPECIAL_UNIT_PER_CLOCK * multiprocessors * CLOCK)
    moved = (4, 11)[passes - 1] * elements + (2, 6)[passes - 1] * length * STATES
    return 1e3 * max(exponentials, 2 * moved / COPY_BYTES_PER_SECOND)


def convolution_rows(length: int, channels: int, width: int, repeats: int) -> Iterator[dict[str, Any]]:
    """The causal-conv1d package takes both layouts and up to 4 taps; it is given ours, which is its faster one."""
    tensors = {
        "x": torch.randn((1, length, channels), device="cuda", dtype=torch.bfloat16),
        "weight": torch.randn((channels, width), device="cuda"),
        "bias": torch.randn(channels, device="cuda"),
    }
    row = {"operator": "causal_conv1d", "length": length, "channels": channels, "width": width}
    moved = 2 * tensors["x"].numel() / COPY_BYTES_PER_SECOND * 1e3
    peer = their_convolution() if width <= 4 else None
    for what, prepare, floor in (
        ("forward", lambda call: without_gradient(lambda: call(**tensors)), 2 * moved),
        ("forward+backward", lambda call: training_step(call, tensors, torch.randn_like(tensors["x"])), 5 * moved),
    ):
        ours = prepare(partial(causal_conv1d, backend="cuda"))
        yield compare(row | {"what": what, "floor_ms": floor}, ours, None if peer is None else prepare(peer), repeats)


def their_convolution() -> Callable[..., torch.Tensor] | None:
    try:
        from causal_conv1d import causal_conv1d_fn  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None

    def call(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu").transpose(1, 2)

    return call


if __name__ == "__main__":
    main()

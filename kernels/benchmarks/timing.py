"""Times and memory of calls on a GPU, ours beside a peer's, as rows."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Call = Callable[[], object]


def compare(
    row: dict[str, Any], ours: Call, mamba: Call | None, repeats: int, *, in_turn: bool = False
) -> dict[str, Any]:
    """in_turn: call by call, so that what takes the host's time takes it from both alike; memory has to hold both."""
    calls = {"ours": ours} if mamba is None else {"ours": ours, "mamba_ssm": mamba}
    if in_turn:
        row |= measure(calls, repeats)
    else:
        for name, call in calls.items():
            row |= measure({name: call}, repeats)
    medians = [row[name].get("median_ms") for name in calls]
    if "floor_ms" in row and medians[0] is not None:
        row["percent_of_floor"] = 100 * row["floor_ms"] / medians[0]
    if len(medians) == 2 and None not in medians:
        row["ratio"] = medians[1] / medians[0]
    return row


def compare_replays(
    row: dict[str, Any], ours: Call, mamba: Call | None, repeats: int, *, times: int = 8
) -> dict[str, Any]:
    """The GPU's time alone, by replays in turn of CUDA graphs of so many calls."""
    calls = {"ours": ours} if mamba is None else {"ours": ours, "mamba_ssm": mamba}
    graphs = {name: replay_of(call, times) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(repeats + 2):
        for name, replay in graphs.items():
            taken[name].append(once(replay) / times)
    for name, found in taken.items():
        warm = found[2:]
        row[name] = {"median_ms": statistics.median(warm), "least_ms": min(warm), "most_ms": max(warm)}
    if mamba is not None:
        row["ratio"] = row["mamba_ssm"]["median_ms"] / row["ours"]["median_ms"]
    return row


def replay_of(call: Call, times: int) -> Call:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())  # a call may add to what the last one left
    with torch.cuda.stream(side):  # what is compiled or allocated once is so before the capture
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    return graph.replay


def measure(calls: dict[str, Call], repeats: int) -> dict[str, dict[str, Any]]:
    """Milliseconds by events, and MiB: `extra_mib` beyond what was there, `peak_mib` in all."""
    gc.collect()
    torch.cuda.empty_cache()
    found = {name: memory(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls if "failed" not in found[name]}
    for _ in range(repeats):
        for name in times:
            times[name].append(once(calls[name]))
    for name, taken in times.items():
        found[name] = {
            "median_ms": statistics.median(taken),
            "least_ms": min(taken),
            "most_ms": max(taken),
        } | found[name]
    return found


def memory(call: Call) -> dict[str, Any]:
    """Of the third call, and so what comes after is warm."""
    try:
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        return {"failed": "out of memory"}
    peak = torch.cuda.max_memory_allocated()
    return {"extra_mib": (peak - before) / 2**20, "peak_mib": peak / 2**20}


def once(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def without_gradient(call: Call) -> Call:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


def training_step(call: Callable[..., torch.Tensor], tensors: Tensors, grad_y: torch.Tensor) -> Call:
    def run() -> None:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        call(**leaves).backward(grad_y)

    return run


def gradients_of(call: Callable[..., torch.Tensor], tensors: Tensors, grad_y: torch.Tensor) -> Call:
    """Forward and backward without leaves' `grad`, as a graph captures it."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    return lambda: torch.autograd.grad(call(**leaves), list(leaves.values()), grad_y)


def summary(row: dict[str, Any]) -> str:
    size = f"{row.get('channels', row.get('d_model'))} x {row['length']:8}"
    kind = row.get("steps") or row.get("recompute") or row.get("backend") or ""
    text = f"{row['operator']:20} {row['what']:24} {size:>16} {kind:11} ours {cell(row['ours'])}"
    if "mamba_ssm" in row:
        text += f"  mamba-ssm {cell(row['mamba_ssm'])} {row.get('ratio', float('nan')):6.2f}x"
    return text + (f" {row['percent_of_floor']:3.0f} % of the floor's speed" if "percent_of_floor" in row else "")


def cell(found: dict[str, Any]) -> str:
    memory = f"{found['extra_mib']:7.0f} MiB" if "extra_mib" in found else ""
    return found.get("failed") or f"{found['median_ms']:9.3f} ms {memory}"

"""Times and memory of calls on a GPU, ours beside a peer's, as rows."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Call = Callable[[], object]


def compare(row: dict[str, Any], ours: Call, mamba: Call | None, repeats: int) -> dict[str, Any]:
    row["ours"] = measure(ours, repeats)
    if mamba is not None:
        row["mamba_ssm"] = measure(mamba, repeats)
        if "median_ms" in row["ours"] and "median_ms" in row["mamba_ssm"]:
            row["ratio"] = row["mamba_ssm"]["median_ms"] / row["ours"]["median_ms"]
    return row


def measure(call: Call, repeats: int) -> dict[str, Any]:
    """Milliseconds by events, and MiB: `extra_mib` beyond what was there, `peak_mib` in all."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        times = [once(call) for _ in range(repeats)]
    except torch.cuda.OutOfMemoryError:
        return {"failed": "out of memory"}
    peak = torch.cuda.max_memory_allocated()
    return {
        "median_ms": statistics.median(times),
        "least_ms": min(times),
        "most_ms": max(times),
        "extra_mib": (peak - before) / 2**20,
        "peak_mib": peak / 2**20,
    }


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


def summary(row: dict[str, Any]) -> str:
    size = f"{row.get('channels', row.get('d_model'))} x {row['length']:8}"
    kind = row.get("steps") or row.get("recompute") or row.get("backend") or ""
    text = f"{row['operator']:20} {row['what']:24} {size:>16} {kind:11} ours {cell(row['ours'])}"
    if "mamba_ssm" in row:
        text += f"  mamba-ssm {cell(row['mamba_ssm'])} {row.get('ratio', float('nan')):6.2f}x"
    return text


def cell(found: dict[str, Any]) -> str:
    return found.get("failed") or f"{found['median_ms']:9.3f} ms {found['extra_mib']:7.0f} MiB"

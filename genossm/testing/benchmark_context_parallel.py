"""One training step at a length on one device, against the length times the devices split over all of them.

    python -m genossm.testing.benchmark_context_parallel [--ranks 2] [--length 1048576] [--d-model 256] [--repeats 5]

Prints a JSON line a measurement: milliseconds (the slowest rank's), peak memory (the fullest rank's) and, over several
devices, `efficiency`: what one device takes for its length, over what they take together for as many lengths. Steps are
whole: forward, loss, backward, sum of gradients over the ranks, AdamW; bfloat16 autocast on a GPU. With `initial` step
sizes a state is felt for some 35,000 positions, with `slow` ones (dt from 1e-5) across whole parts, the worst case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from genossm.models import SequenceModel, StackConfig
from genossm.parallel import ContextGroup, split_context

MODELS: dict[str, dict[str, Any]] = {
    "causal": {},
    "equivariant": {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"},
}
STEPS: dict[str, dict[str, Any]] = {"initial": {}, "slow": {"dt_min": 1e-5, "dt_max": 1e-4, "dt_init_floor": 1e-5}}


def rows(
    group: ContextGroup, device: torch.device, *, length: int, d_model: int, layers: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """One row a measurement, the same on every rank; collective."""
    for kind, choices in MODELS.items():
        alone: dict[str, Any] = {}
        for steps, sizes in STEPS.items():
            config = StackConfig(d_model=d_model, n_layer=layers, **choices, **sizes)
            about = {"model": kind, "d_model": d_model, "layers": layers, "steps": steps}
            if not alone:
                # One device runs while the others wait; how fast states fade makes no difference to it.
                alone = _measured(group, device, config, length, repeats, split=False)
                yield {**about, "ranks": 1, "length": length, **alone}
            together = _measured(group, device, config, group.ranks * length, repeats, split=True)
            efficiency = {}
            if "median_ms" in alone and "median_ms" in together:
                efficiency = {"efficiency": round(alone["median_ms"] / together["median_ms"], 4)}
            yield {**about, "ranks": group.ranks, "length": group.ranks * length, **together, **efficiency}


def _measured(
    group: ContextGroup, device: torch.device, config: StackConfig, length: int, repeats: int, *, split: bool
) -> dict[str, Any]:
    """Times and memory of a step over `length`, read by all ranks together or by the first one alone."""
    found: list[float] = []
    peak = 0.0
    if split or group.rank == 0:
        step = training_step(config, device, length, group if split else None)
        try:
            _timed(step, device)
            _timed(step, device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            for _ in range(repeats):
                if split:
                    dist.all_reduce(torch.zeros(1, device=device), group=group.group)
                found.append(_timed(step, device))
            peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
        except torch.cuda.OutOfMemoryError:
            if split:
                raise  # the other ranks wait in a collective: nothing can go on
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()
    worst = torch.tensor([*found, *[0.0] * (repeats - len(found)), peak], dtype=torch.float64, device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX, group=group.group)
    *times, peak = worst.tolist()
    if not times[0]:
        return {"failed": "out of memory"}
    figures = {"median_ms": statistics.median(times), "least_ms": min(times), "most_ms": max(times)}
    return {**{name: round(value, 2) for name, value in figures.items()}, "repeats": repeats, "peak_mib": round(peak)}


def training_step(
    config: StackConfig, device: torch.device, length: int, group: ContextGroup | None
) -> Callable[[], Tensor]:
    """A step over one sequence of `length`, or over this rank's part of it; gives the part's loss."""
    torch.manual_seed(0)
    model = SequenceModel(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 11, (1, length), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 4, (1, length), generator=generator)
    if group is not None:
        split_context(model, group)
        ids, targets = group.take(ids), group.take(targets)
    ids, targets = ids.to(device), targets.to(device)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(ids).logits
        loss = F.cross_entropy(logits[..., 7:11].reshape(-1, 4).float(), targets.reshape(-1), reduction="sum") / length
        loss.backward()
        if group is not None:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat, group=group.group)
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient))
        optimizer.step()
        return loss.detach()

    return step


def _timed(step: Callable[[], object], device: torch.device) -> float:
    """Milliseconds."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return 1e3 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _work(rank: int, directory: str, options: argparse.Namespace) -> None:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if gpu else "gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=options.ranks
    )
    machine = {"device": torch.cuda.get_device_name(device) if gpu else "cpu", "torch": torch.__version__}
    sizes = {"length": options.length, "d_model": options.d_model, "layers": options.layers}
    for row in rows(ContextGroup(), device, repeats=options.repeats, **sizes):
        if rank == 0:
            print(json.dumps({**machine, **row}), flush=True)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--length", type=int, default=1 << 20, help="positions on one device")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        mp.spawn(_work, args=(directory, options), nprocs=options.ranks)


if __name__ == "__main__":
    main()

"""One sequence over two GPUs of one host with NCCL, against one GPU and against float64."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from genossm.models import SequenceModel, StackConfig
from genossm.parallel import ContextGroup, context_parallel
from genossm.testing.benchmark_context_parallel import rows, training_step

RANKS = 2
LENGTH = 20_001
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < RANKS, reason=f"fewer than {RANKS} CUDA devices"),
]
BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
# States that are felt across whole parts, and states that are gone within them.
SLOW, FAST = {"dt_min": 1e-5, "dt_max": 1e-3, "dt_init_floor": 1e-5}, {"dt_min": 0.5, "dt_max": 2.0}
CASES: dict[str, dict[str, Any]] = {
    "causal, slow": {**SLOW},
    "causal, fast": {**FAST, "d_conv": 24},
    "both ways, slow": {**BOTH, **SLOW},
    "both strands, fast": {**BOTH, **FAST, "reverse_complement": "equivariant"},
    "both strands, slow": {**BOTH, **SLOW, "reverse_complement": "equivariant"},
}
Results = dict[str, torch.Tensor]


def run(
    name: str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
    group: ContextGroup | None = None,
    recompute: str = "nothing",
) -> Results:
    """Logits and gradients; under autocast where `dtype` is bfloat16."""
    torch.manual_seed(0)
    model = SequenceModel(StackConfig(d_model=64, n_layer=2, **CASES[name])).to(device)
    if dtype == torch.float64:
        model = model.double()
    for block in model.backbone.layers:
        block.recompute = recompute  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 12, (2, LENGTH), generator=generator).to(device)
    weight = torch.randn(2, LENGTH, 16, generator=generator).to(device)
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=dtype == torch.bfloat16):
        if group is None:
            logits = model(ids).logits
        else:
            with context_parallel(model, group.group):
                logits = model(group.take(ids)).logits
            weight = group.take(weight)
    (logits * weight).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if group is None:
        return {"logits": logits.detach().cpu(), **{name: gradient.cpu() for name, gradient in gradients.items()}}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
    return {"logits": group.join(logits, LENGTH).cpu(), **{name: g.cpu() for name, g in gradients.items()}}


def begin(rank: int, directory: str) -> tuple[ContextGroup, torch.device]:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    # A rank that failed must not leave the other one waiting for long.
    limit = datetime.timedelta(seconds=120)
    address = f"file://{directory}/meeting"
    dist.init_process_group("nccl", init_method=address, rank=rank, world_size=RANKS, timeout=limit)
    return ContextGroup(), device


def work(rank: int, directory: str) -> None:
    group, device = begin(rank, directory)
    found = {
        (name, dtype, recompute): run(name, device, dtype, group, recompute)
        for name in CASES
        for dtype in (torch.float32, torch.bfloat16)
        for recompute in ("nothing", "projections")
    }
    torch.save(found, f"{directory}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, torch.dtype, str], Results]]:
    directory: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(str(directory),), nprocs=RANKS)
    return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_two_gpus_are_as_exact_as_one(
    name: str, dtype: torch.dtype, results: list[dict[tuple[str, torch.dtype, str], Results]]
) -> None:
    """Against float64: over all outputs and gradients together at most twice the error of one GPU that reads the whole,
    and four times in any one of them, since the library's matrix products add up in another order at other lengths.
    """
    exact, whole = run(name, "cpu", torch.float64), run(name, "cuda:0", dtype)
    # Where one GPU's error is small by luck, the dtype's own rounding is allowed.
    allowed = {what: max(_error(whole[what], exact[what]), 2 * torch.finfo(dtype).eps) for what in exact}
    for rank in range(RANKS):
        for recompute in ("nothing", "projections"):
            found = results[rank][name, dtype, recompute]
            ratios = {what: _error(found[what], exact[what]) / allowed[what] for what in exact}
            worst = max(ratios, key=lambda what: ratios[what])
            where = f"{worst}: {ratios[worst]:.2f} times {allowed[worst]:.1e}; {recompute}, rank {rank}"
            assert ratios[worst] <= 4, where
            together = sum(_error(found[what], exact[what]) ** 2 for what in exact) ** 0.5
            assert together <= 2 * sum(error**2 for error in allowed.values()) ** 0.5, where


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def weigh(rank: int, directory: str) -> None:
    """Peak memory of a rank's step over half of 524,288 positions, and of one over 262,144 alone."""
    group, device = begin(rank, directory)
    config = StackConfig(d_model=128, n_layer=4, direction="bidirectional", objective="masked")
    peaks = []
    for length, place in ((1 << 19, group), (1 << 18, None)):
        step = training_step(config, device, length, place)
        step()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        peaks.append(torch.cuda.max_memory_allocated(device))
        del step
        torch.cuda.empty_cache()
    torch.save(peaks, f"{directory}/{rank}.pt")
    dist.destroy_process_group()


def test_a_rank_needs_the_memory_of_its_own_part(tmp_path: Path) -> None:
    mp.spawn(weigh, args=(str(tmp_path),), nprocs=RANKS)
    for rank in range(RANKS):
        part, alone = torch.load(tmp_path / f"{rank}.pt")
        assert part < 1.15 * alone


def measure(rank: int, directory: str) -> None:
    group, device = begin(rank, directory)
    found = list(rows(group, device, length=65_536, d_model=64, layers=2, repeats=3))
    torch.save(found, f"{directory}/{rank}.pt")
    dist.destroy_process_group()


def test_the_benchmark_measures(tmp_path: Path) -> None:
    mp.spawn(measure, args=(str(tmp_path),), nprocs=RANKS)
    found = torch.load(tmp_path / "0.pt")
    assert [row["ranks"] for row in found] == [1, 2, 2, 1, 2, 2]
    assert all(0 < row["least_ms"] <= row["median_ms"] <= row["most_ms"] and row["peak_mib"] > 0 for row in found)
    assert all(0 < row["efficiency"] < 1.5 for row in found if row["ranks"] > 1)

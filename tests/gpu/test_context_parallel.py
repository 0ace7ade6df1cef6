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
from genossm.testing.exactness import less_exact

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
    """Logits and gradients of two sequences; under autocast where `dtype` is bfloat16.

    One process reads one after the other, so that it has as many positions at a time as each of two that split both:
    how sums are ordered, and so how exact they are, is chosen by that number. Over more than 65,536 rows, PyTorch's
    GPU kernel adds up the gradient of a norm's weight in many more and shorter sums than over fewer, and more exactly.
    """
    torch.manual_seed(0)
    model = SequenceModel(StackConfig(d_model=64, n_layer=2, **CASES[name])).to(device)
    if dtype == torch.float64:
        model = model.double()
    for block in model.backbone.layers:
        block.recompute = recompute  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 12, (2, LENGTH), generator=generator).to(device)
    weight = torch.randn(2, LENGTH, 16, generator=generator).to(device)
    if group is None:
        pairs = zip(ids.split(1), weight.split(1), strict=True)
        logits = torch.cat([step(model, some_ids, some, dtype) for some_ids, some in pairs])
    else:
        with context_parallel(model, group.group):
            logits = step(model, group.take(ids), group.take(weight), dtype)
        logits = group.join(logits, LENGTH)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if group is not None:
        for gradient in gradients.values():
            dist.all_reduce(gradient)
    return {"logits": logits.cpu(), **{name: gradient.cpu() for name, gradient in gradients.items()}}


def step(model: SequenceModel, ids: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The logits; gradients are added to those that are there."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(ids).logits
    (logits * weight).sum().backward()
    return logits.detach()


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
    """Outputs, all along the sequence, and gradients: against float64, at most twice the error of one GPU that reads
    the sequences whole. Everything that is worse is told at once.
    """
    exact, whole = run(name, "cpu", torch.float64), run(name, "cuda:0", dtype)
    # Where one GPU's error is small by luck, the dtype's own rounding is allowed.
    options: dict[str, Any] = {"rounding": torch.finfo(dtype).eps / 2, "sequences": ["logits"]}
    lines = [
        f"rank {rank}, recompute {recompute}: {line}"
        for rank in range(RANKS)
        for recompute in ("nothing", "projections")
        for line in less_exact(results[rank][name, dtype, recompute], whole, exact, **options)
    ]
    assert not lines, "\n".join(lines)


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

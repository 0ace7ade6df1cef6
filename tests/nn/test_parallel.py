"""Two processes under DistributedDataParallel: the gradients of one process with both batches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from genossm.nn import Stack, StackConfig

BATCH = 2


def build() -> Stack:
    torch.manual_seed(0)
    return Stack(StackConfig(d_model=16, n_layer=2, direction="bidirectional", objective="masked"))


def ids() -> torch.Tensor:
    return torch.randint(0, 16, (2 * BATCH, 33), generator=torch.Generator().manual_seed(1))


def gradients(stack: torch.nn.Module, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    stack(rows).square().mean().backward()
    return {name.removeprefix("module."): p.grad.clone() for name, p in stack.named_parameters() if p.grad is not None}


def work(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    stack = DistributedDataParallel(build())
    found = gradients(stack, ids()[rank * BATCH : (rank + 1) * BATCH])
    torch.save(found, f"{directory}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    expected = gradients(build(), ids())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)

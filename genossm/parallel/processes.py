"""Which of several processes this one is, before and after they have met."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def started() -> bool:
    """Whether this process has met others."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this is the first process of the run, or the only one; known before they meet.

    torchrun sets RANK, Slurm SLURM_PROCID; processes that Lightning starts have their numbers on a machine, and the
    machines numbers that the user gave.
    """
    if started():
        return dist.get_rank() == 0
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def process_count() -> int:
    """How many processes have met; 1 where this one is alone."""
    return dist.get_world_size() if started() else 1


def summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on each of them; the tensor itself where there is one. No gradient."""
    if process_count() == 1:
        return tensor
    result = tensor.detach().clone()
    dist.all_reduce(result)
    return result


def largest(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers, on each of them; collective."""
    if process_count() == 1:
        return number
    found = torch.tensor(number, dtype=torch.int64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def agreed(wish: bool, device: torch.device) -> bool:
    """True on every process as soon as one wishes it; collective."""
    return bool(largest(int(wish), device))


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over processes (FSDP), whole; collective. Any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@contextmanager
def own_group() -> Iterator[None]:
    """Processes that meet in this block part at its end; those that had met before stay together.

    After an error they do not part: the others may be waiting for this one.
    """
    met = started()
    yield
    if started() and not met:
        dist.destroy_process_group()

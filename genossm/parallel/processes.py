"""Which of several processes this one is, before and after they have met."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

# What torchrun, Lightning's own starter and Slurm set, in the order in which Lightning looks at them.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def started() -> bool:
    """Whether this process has met others."""
    return dist.is_available() and dist.is_initialized()


def process_rank() -> int:
    """This process's number among those of the run, 0 where it is alone; known from the start."""
    if started():
        return dist.get_rank()
    return int(next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0"))


def process_count() -> int:
    """How many processes have met; 1 where this one is alone."""
    return dist.get_world_size() if started() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on each of them; the tensor itself where there is one. No gradient."""
    if process_count() == 1:
        return tensor
    summed = tensor.detach().clone()
    dist.all_reduce(summed)
    return summed


def agreed(wish: bool, device: torch.device) -> bool:
    """True on every process as soon as one wishes it; collective, like `total`."""
    if process_count() == 1:
        return wish
    return bool(total(torch.tensor(float(wish), device=device)) > 0)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over processes (FSDP), whole; collective. Any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()

"""Whether a device that was asked for is there."""

from __future__ import annotations

import torch

from genossm.core.errors import UsageError


def require_device(device: torch.device | str) -> torch.device:
    """`device` as PyTorch has it. Raises: UsageError if it is no device, or a GPU that this machine does not have."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"{device!r} is no device; wanted cpu, cuda or cuda:N.") from None
    if found.type == "cuda":
        require_gpus((found.index or 0) + 1, str(device))
    return found


def require_gpus(count: int, asked: str) -> None:
    """Raise UsageError if this machine has fewer than `count` GPUs.   asked: the words that ask for them."""
    there = torch.cuda.device_count()
    if there < count:
        raise UsageError(
            f"{asked} was asked for; this machine has {there} CUDA devices. Choose one that is there, or cpu."
        )

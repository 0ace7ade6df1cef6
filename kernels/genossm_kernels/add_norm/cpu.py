"""On a CPU PyTorch's own norms are the fast path: rows fit its caches, so that separate passes cost little."""

from __future__ import annotations

from genossm_kernels.add_norm.contract import NormCall
from genossm_kernels.add_norm.torch_path import run

__all__ = ["run", "unavailable"]


def unavailable(call: NormCall) -> str | None:
    return None if call.device.type == "cpu" else f"the tensors are on {call.device}, not on a CPU"

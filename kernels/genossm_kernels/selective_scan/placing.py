"""Runs a back end into memory of the caller's: slices of larger rows, and sums of several calls.

A back end with the attribute `PLACES` writes there itself. For others the results are copied or added.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from genossm_kernels.selective_scan.contract import CompiledBackend, ScanArguments, ScanGradients, ScanTargets


def forward_into(
    backend: CompiledBackend, arguments: ScanArguments, y: Tensor, *, add: bool, need_backward: bool
) -> tuple[Tensor, Tensor | None]:
    """Outputs go into `y`, or are added to it; the final state, and what the backward pass wants kept."""
    if hasattr(backend, "PLACES"):
        return cast(Any, backend).forward(arguments, need_backward=need_backward, y=y, add=add)[1:]
    found, final_state, kept = backend.forward(arguments, need_backward=need_backward)
    put(found, y, add=add)
    return final_state, kept


def backward_into(
    backend: CompiledBackend,
    arguments: ScanArguments,
    kept: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    targets: ScanTargets,
) -> ScanGradients:
    """All gradients, those of u, delta, z, B and C in `targets`."""
    if hasattr(backend, "PLACES"):
        return cast(Any, backend).backward(arguments, kept, grad_y, grad_final_state, targets=targets)
    found = backend.backward(arguments, kept, grad_y, grad_final_state)
    assert found.z is not None
    put(found.u, targets.u, add=False)
    put(found.delta, targets.delta, add=False)
    put(found.z, targets.z, add=targets.add)
    put(found.B, targets.B, add=False)
    put(found.C, targets.C, add=False)
    return found


def put(found: Tensor, target: Tensor, *, add: bool) -> None:
    """Replace what is in `target`, or add to it."""
    if add:
        target += found
    else:
        target.copy_(found)

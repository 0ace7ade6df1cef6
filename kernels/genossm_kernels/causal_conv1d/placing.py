"""Runs a back end into memory of the caller's: a slice of larger rows, or a sum of several calls.

A back end with the attribute `PLACES` writes there itself. For others the result is copied or added.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from genossm_kernels.causal_conv1d.contract import CompiledBackend, ConvArguments, ConvGradients


def forward_into(backend: CompiledBackend, arguments: ConvArguments, y: Tensor) -> Tensor:
    """Outputs go into `y`; the final state."""
    if hasattr(backend, "PLACES"):
        return cast(Any, backend).forward(arguments, y=y)[1]
    found, final_state = backend.forward(arguments)
    y.copy_(found)
    return final_state


def backward_into(
    backend: CompiledBackend,
    arguments: ConvArguments,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    grad_x: Tensor,
    *,
    add: bool,
) -> ConvGradients:
    """All gradients; that of the input replaces what is in `grad_x`, or is added to it."""
    if hasattr(backend, "PLACES"):
        return cast(Any, backend).backward(arguments, grad_y, grad_final_state, grad_x=grad_x, add=add)
    found = backend.backward(arguments, grad_y, grad_final_state)
    if add:
        grad_x += found.x
    else:
        grad_x.copy_(found.x)
    return found

"""Drives back ends that bring their own backward pass, in plain eager calls."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm_kernels.checks import unit_stride
from genossm_kernels.operators import recorder
from genossm_kernels.selective_scan.contract import CompiledBackend, ScanArguments, ScanGradients

DIFFERENTIABLE = tuple(field.name for field in fields(ScanGradients))


class ScanFunction(torch.autograd.Function):
    """Inputs: the back end, the arguments, then the differentiable tensors of `ScanGradients` in its order."""

    @staticmethod
    def forward(
        ctx: Any, backend: CompiledBackend, arguments: ScanArguments, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        y, final_state, kept = backend.forward(arguments, need_backward=True)
        ctx.save_for_backward(*tensors, arguments.seq_idx, kept)
        ctx.set_materialize_grads(False)
        ctx.call = (backend, arguments.delta_softplus, arguments.reverse)
        return y, final_state

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None
    ) -> tuple[Any, ...]:
        # Recorded itself, where someone wants second derivatives, it has to say that there are none.
        return (_gradients_once if torch.is_grad_enabled() else _gradients)(ctx, grad_y, grad_final_state)


def _gradients(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None) -> tuple[Any, ...]:
    u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx, kept = ctx.saved_tensors
    backend, delta_softplus, reverse = ctx.call
    arguments = ScanArguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, initial_state, seq_idx)
    found = differentiate(backend, arguments, kept, grad_y, grad_final_state)
    return (
        *(None, None),
        *(found.u, found.delta, found.A, found.B, found.C),
        *(found.D, found.z, found.delta_bias, found.initial_state),
    )


_gradients_once = once_differentiable(_gradients)
_record = recorder(ScanFunction)


def differentiate(
    backend: CompiledBackend,
    arguments: ScanArguments,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
) -> ScanGradients:
    """The back end's backward pass, for output gradients as autograd gives them."""
    if grad_y is None:
        grad_y = torch.zeros_like(arguments.u, memory_format=torch.contiguous_format)
    if grad_final_state is not None:
        grad_final_state = grad_final_state.contiguous()
    return backend.backward(arguments, kept, unit_stride(grad_y), grad_final_state)


def run_compiled(backend: CompiledBackend, arguments: ScanArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, recorded for autograd only where something asks for a gradient."""
    if torch.is_grad_enabled():
        a = arguments
        tensors = (a.u, a.delta, a.A, a.B, a.C, a.D, a.z, a.delta_bias, a.initial_state)
        if wants_gradient(tensors):
            return _record(backend, arguments, *tensors)
    y, final_state, _ = backend.forward(arguments, need_backward=False)
    return y, final_state


def wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether autograd would record a call on these."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)

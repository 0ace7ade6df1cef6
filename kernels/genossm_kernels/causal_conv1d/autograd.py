"""Drives back ends that bring their own backward pass, in plain eager calls."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm_kernels.causal_conv1d.contract import CompiledBackend, ConvArguments, ConvGradients
from genossm_kernels.checks import unit_stride
from genossm_kernels.operators import recorder

DIFFERENTIABLE = tuple(field.name for field in fields(ConvGradients))


class ConvFunction(torch.autograd.Function):
    """Inputs: the back end, the arguments, then the differentiable tensors of `ConvGradients` in its order."""

    @staticmethod
    def forward(
        ctx: Any, backend: CompiledBackend, arguments: ConvArguments, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors, arguments.seq_idx)
        ctx.set_materialize_grads(False)
        ctx.call = (backend, arguments.silu, arguments.reverse)
        return backend.forward(arguments)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None
    ) -> tuple[Any, ...]:
        # Recorded itself, where someone wants second derivatives, it has to say that there are none.
        return (_gradients_once if torch.is_grad_enabled() else _gradients)(ctx, grad_y, grad_final_state)


def _gradients(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None) -> tuple[Any, ...]:
    x, weight, bias, initial_state, seq_idx = ctx.saved_tensors
    backend, silu, reverse = ctx.call
    arguments = ConvArguments(x, weight, bias, silu, reverse, initial_state, seq_idx)
    found = differentiate(backend, arguments, grad_y, grad_final_state)
    return None, None, found.x, found.weight, found.bias, found.initial_state


_gradients_once = once_differentiable(_gradients)
_record = recorder(ConvFunction)


def differentiate(
    backend: CompiledBackend, arguments: ConvArguments, grad_y: Tensor | None, grad_final_state: Tensor | None
) -> ConvGradients:
    """The back end's backward pass, for output gradients as autograd gives them."""
    if grad_y is None:
        grad_y = torch.zeros_like(arguments.x, memory_format=torch.contiguous_format)
    if grad_final_state is not None:
        grad_final_state = grad_final_state.contiguous()
    return backend.backward(arguments, unit_stride(grad_y), grad_final_state)


def run_compiled(backend: CompiledBackend, arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, recorded for autograd only where something asks for a gradient."""
    if torch.is_grad_enabled():
        tensors = (arguments.x, arguments.weight, arguments.bias, arguments.initial_state)
        if any(tensor is not None and tensor.requires_grad for tensor in tensors):
            return _record(backend, arguments, *tensors)
    return backend.forward(arguments)

"""Drives back ends that bring their own backward pass, in plain eager calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm_kernels.add_norm.contract import CompiledBackend, NormArguments, NormSaved


class NormFunction(torch.autograd.Function):
    """Inputs: the back end, the arguments, then x, the residual, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, backend: CompiledBackend, arguments: NormArguments, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x, _, weight, bias = tensors
        y, stream = backend.forward(arguments)
        # Without x the stream is an input that goes on: autograd gives it out as another tensor on the same memory,
        # and what comes back to it meets the gradient of the norm in one pass.
        ctx.save_for_backward(stream, weight)
        ctx.set_materialize_grads(False)
        ctx.call = (backend, bias is not None, arguments.layer, arguments.eps, None if x is None else x.dtype)
        return y, stream

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_y: Tensor | None, grad_stream: Tensor | None
    ) -> tuple[Any, ...]:
        # Recorded itself, where someone wants second derivatives, it has to say that there are none.
        return (_gradients_once if torch.is_grad_enabled() else _gradients)(ctx, grad_y, grad_stream)


def _gradients(ctx: Any, grad_y: Tensor | None, grad_stream: Tensor | None) -> tuple[Any, ...]:
    backend, *options = ctx.call
    return None, None, *differentiate(backend, NormSaved(*ctx.saved_tensors, *options), grad_y, grad_stream)


_gradients_once = once_differentiable(_gradients)


def differentiate(
    backend: CompiledBackend, saved: NormSaved, grad_y: Tensor | None, grad_stream: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of x, the residual, weight and bias, for output gradients as autograd gives them."""
    if grad_y is None:
        added = None if grad_stream is None or saved.x_dtype is None else grad_stream.to(saved.x_dtype)
        return added, grad_stream, None, None
    found = backend.backward(saved, grad_y, grad_stream)
    return found.x, found.residual, found.weight, found.bias


def run_compiled(backend: CompiledBackend, arguments: NormArguments) -> tuple[Tensor, Tensor]:
    """y and the stream, recorded for autograd only where something asks for a gradient."""
    if torch.is_grad_enabled():
        tensors = (arguments.x, arguments.residual, arguments.weight, arguments.bias)
        if any(tensor is not None and tensor.requires_grad for tensor in tensors):
            return NormFunction.apply(backend, arguments, *tensors)  # type: ignore[return-value]
    return backend.forward(arguments)

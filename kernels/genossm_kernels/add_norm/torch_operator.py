"""`genossm::add_norm` and its backward operator, over the back ends with a hand-written backward pass.

An operator gives out no input: without x its second output is empty, and the caller goes on with the stream it has.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from genossm_kernels.add_norm.autograd import differentiate
from genossm_kernels.add_norm.contract import CompiledBackend, NormArguments, NormCall, NormSaved, in_rows
from genossm_kernels.checks import check_dtype, state_dtype
from genossm_kernels.dispatch import backend_name, choose_backend
from genossm_kernels.operators import constant_when_traced, register

_NAME = "add_norm"


def run_operator(arguments: NormArguments, backend: str) -> tuple[Tensor, Tensor]:
    """y and the stream through the custom operator; `backend` has a backward pass of its own."""
    a = arguments
    y, stream = torch.ops.genossm.add_norm(a.x, a.residual, a.weight, a.bias, a.layer, a.eps, a.dtype, backend)
    return y, a.residual if a.x is None else stream


@constant_when_traced
def traced_backend(backend: str, *facts: Any) -> str:
    """The name of the back end that runs calls with these `NormArguments.facts`."""
    return backend_name(_NAME, backend, NormCall(*facts))


def _forward(
    x: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layer: bool,
    eps: float,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_dtype(_NAME, name, tensor, state_dtype(residual.dtype))
    bias = None if bias is None else bias.contiguous()
    added, residual = None if x is None else in_rows(x), in_rows(residual)
    arguments = NormArguments(added, residual, weight.contiguous(), bias, layer, eps, dtype)
    y, stream = cast(CompiledBackend, choose_backend(_NAME, backend, arguments.call)).forward(arguments)
    return y, residual.new_empty(0) if x is None else stream


def _fake_forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    x, residual, dtype = inputs[0], inputs[1], inputs[6]
    shape = residual.shape
    return residual.new_empty(shape, dtype=dtype), residual.new_empty(0 if x is None else shape)


def _backward(
    grad_y: Tensor | None,
    grad_stream: Tensor | None,
    stream: Tensor,
    weight: Tensor,
    with_bias: bool,
    layer: bool,
    eps: float,
    x_dtype: torch.dtype | None,
    backend: str,
) -> tuple[Tensor, ...]:
    """Empty where there is no such gradient, or where it is that of the residual."""
    if grad_y is None:
        grad_y = torch.zeros_like(stream)
    saved = NormSaved(in_rows(stream), weight.contiguous(), with_bias, layer, eps, x_dtype)
    call = NormCall(stream.device, (stream.dtype, grad_y.dtype, *given_dtype(x_dtype)), stream.shape[-1])
    found = differentiate(cast(CompiledBackend, choose_backend(_NAME, backend, call)), saved, grad_y, grad_stream)
    x, residual, grad_weight, grad_bias = found
    assert residual is not None
    assert grad_weight is not None
    nothing = stream.new_empty(0)
    if x is None or x is residual:
        x = nothing if x_dtype is None else nothing.to(x_dtype)
    return x, residual, grad_weight, weight.new_empty(0) if grad_bias is None else grad_bias


def given_dtype(dtype: torch.dtype | None) -> tuple[torch.dtype, ...]:
    return () if dtype is None else (dtype,)


def _fake_backward(*inputs: Any) -> tuple[Tensor, ...]:
    stream, weight, with_bias, x_dtype = inputs[2], inputs[3], inputs[4], inputs[7]
    own = x_dtype is not None and x_dtype != stream.dtype
    x = stream.new_empty(stream.shape if own else 0, dtype=x_dtype or stream.dtype)
    return (
        x,
        stream.new_empty(stream.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape if with_bias else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, weight, bias, layer, eps, _, backend = inputs
    ctx.save_for_backward(residual if x is None else output[1], weight)
    ctx.set_materialize_grads(False)
    ctx.options = (bias is not None, layer, eps, None if x is None else x.dtype, backend)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_stream: Tensor | None) -> tuple[Any, ...]:
    stream, weight = ctx.saved_tensors
    with_bias, _, _, x_dtype, _ = ctx.options
    # The empty output that stands for a stream that goes on has no gradient to hand back.
    onward = None if x_dtype is None else grad_stream
    x, residual, grad_weight, grad_bias = torch.ops.genossm.add_norm_backward(
        grad_y, onward, stream, weight, *ctx.options
    )
    if x_dtype is None:
        x = None
    elif x_dtype == stream.dtype:
        x = residual
    return x, residual, grad_weight, grad_bias if with_bias else None, None, None, None, None


register(
    _NAME,
    "(Tensor? x, Tensor residual, Tensor weight, Tensor? bias, bool layer, float eps, ScalarType dtype, str backend)"
    " -> (Tensor, Tensor)",
    _forward,
    _fake_forward,
    autograd=(_save, _differentiate),
)
register(
    f"{_NAME}_backward",
    "(Tensor? grad_y, Tensor? grad_stream, Tensor stream, Tensor weight, bool with_bias, bool layer, float eps, "
    "ScalarType? x_dtype, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)

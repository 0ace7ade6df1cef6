"""`genossm::causal_conv1d` and its backward operator, over the back ends with a hand-written backward pass."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from genossm_kernels.causal_conv1d.autograd import DIFFERENTIABLE, differentiate
from genossm_kernels.causal_conv1d.contract import CompiledBackend, ConvArguments, ConvCall, kind_of
from genossm_kernels.checks import check_dtype, state_dtype, unit_stride
from genossm_kernels.dispatch import backend_for, backend_name
from genossm_kernels.operators import constant_when_traced, given, register

_NAME = "causal_conv1d"
_INPUTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? seq_idx, "
    "bool silu, bool[] reverse, str backend"
)


def run_operator(arguments: ConvArguments, backend: str) -> tuple[Tensor, Tensor]:
    """y and the final state through the custom operator; `backend` has a backward pass of its own."""
    tensors = (arguments.x, arguments.weight, arguments.bias, arguments.initial_state, arguments.seq_idx)
    return torch.ops.genossm.causal_conv1d(*tensors, arguments.silu, list(arguments.reverse), backend)


@constant_when_traced
def traced_backend(backend: str, *facts: Any) -> str:
    """The name of the back end that runs calls with these `ConvArguments.facts`."""
    return backend_name(_NAME, backend, ConvCall(*facts))


def _arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    silu: bool,
    reverse: list[bool],
) -> ConvArguments:
    """A compiler may hand on other strides than it traced with."""
    check_dtype(_NAME, "weight", weight, state_dtype(x.dtype))
    check_dtype(_NAME, "bias", bias, state_dtype(x.dtype))
    check_dtype(_NAME, "initial_state", initial_state, x.dtype)
    check_dtype(_NAME, "seq_idx", seq_idx, torch.int32)
    others = (bias, initial_state, seq_idx)
    bias, initial_state, seq_idx = (None if tensor is None else tensor.contiguous() for tensor in others)
    return ConvArguments(unit_stride(x), weight.contiguous(), bias, silu, tuple(reverse), initial_state, seq_idx)


def _known(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    silu: bool,
    reverse: list[bool],
) -> ConvArguments:
    """`_arguments` of real tensors. Where it left them as they are, those of that kind are not looked at again."""
    given = ConvArguments(x, weight, bias, silu, tuple(reverse), initial_state, seq_idx)
    given.kind = kind_of(given)
    if not given.kind.as_operator:
        arguments = _arguments(x, weight, bias, initial_state, seq_idx, silu, reverse)
        if any(getattr(arguments, name) is not getattr(given, name) for name in (*DIFFERENTIABLE, "seq_idx")):
            return arguments
        given.kind.as_operator = True
    return given


def _backend(name: str, arguments: ConvArguments) -> CompiledBackend:
    return cast(CompiledBackend, backend_for(_NAME, name, arguments))


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    *others, backend = inputs
    arguments = _known(*others)
    return _backend(backend, arguments).forward(arguments)


def _fake_forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    x, weight = inputs[:2]
    return x.new_empty(x.shape), x.new_empty((x.shape[0], weight.shape[1] - 1, x.shape[2]))


def _backward(*inputs: Any) -> tuple[Tensor, ...]:
    grad_y, grad_final_state, *others, backend = inputs
    arguments = _known(*others)
    gradients = differentiate(_backend(backend, arguments), arguments, grad_y, grad_final_state)
    found = (getattr(gradients, name) for name in DIFFERENTIABLE)
    return tuple(arguments.x.new_empty(0) if tensor is None else tensor for tensor in found)


def _fake_backward(*inputs: Any) -> tuple[Tensor, ...]:
    tensors = inputs[2:6]
    return tuple(inputs[2].new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in tensors)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG001
    *tensors, silu, reverse, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)
    ctx.options = (silu, list(reverse), backend)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    found = torch.ops.genossm.causal_conv1d_backward(grad_y, grad_final_state, *tensors, *ctx.options)
    return (*given(found, tensors[:-1]), None, None, None, None)


register(_NAME, f"({_INPUTS}) -> (Tensor, Tensor)", _forward, _fake_forward, autograd=(_save, _differentiate))
register(
    f"{_NAME}_backward",
    f"(Tensor? grad_y, Tensor? grad_final_state, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)

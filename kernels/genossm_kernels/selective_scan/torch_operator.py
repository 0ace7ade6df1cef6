"""`genossm::selective_scan` and its backward operator, over the back ends with a hand-written backward pass."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from genossm_kernels.checks import check_dtype, state_dtype, unit_stride
from genossm_kernels.dispatch import backend_for, backend_name
from genossm_kernels.operators import constant_when_traced, given, register
from genossm_kernels.selective_scan.autograd import DIFFERENTIABLE, differentiate, wants_gradient
from genossm_kernels.selective_scan.contract import CompiledBackend, ScanArguments, ScanCall, kind_of

_NAME = "selective_scan"
_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, Tensor? seq_idx, bool delta_softplus, bool[] reverse, str backend"
)
_TENSORS = (*DIFFERENTIABLE, "seq_idx")


def run_operator(arguments: ScanArguments, backend: str) -> tuple[Tensor, Tensor]:
    """y and the final state through the custom operator; `backend` has a backward pass of its own."""
    tensors = tuple(getattr(arguments, name) for name in _TENSORS)
    options = (arguments.delta_softplus, list(arguments.reverse), backend, wants_gradient(tensors))
    y, final_state, _ = torch.ops.genossm.selective_scan(*tensors, *options)
    return y, final_state


@constant_when_traced
def traced_backend(backend: str, *facts: Any) -> str:
    """The name of the back end that runs calls with these `ScanArguments.facts`."""
    return backend_name(_NAME, backend, ScanCall(*facts))


def _arguments(tensors: tuple[Any, ...], delta_softplus: bool, reverse: list[bool]) -> ScanArguments:
    """A compiler may hand on other strides than it traced with."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx = tensors
    for name, tensor in (("delta", delta), ("B", B), ("C", C), ("z", z)):
        check_dtype(_NAME, name, tensor, u.dtype)
    for name, tensor in (("A", A), ("D", D), ("delta_bias", delta_bias), ("initial_state", initial_state)):
        check_dtype(_NAME, name, tensor, state_dtype(u.dtype))
    check_dtype(_NAME, "seq_idx", seq_idx, torch.int32)
    u, delta, B, C = unit_stride(u), unit_stride(delta), unit_stride(B), unit_stride(C)
    z = None if z is None else unit_stride(z)
    others = (D, delta_bias, initial_state, seq_idx)
    D, delta_bias, initial_state, seq_idx = (None if tensor is None else tensor.contiguous() for tensor in others)
    options = (delta_softplus, tuple(reverse))
    return ScanArguments(u, delta, A.contiguous(), B, C, D, z, delta_bias, *options, initial_state, seq_idx)


def _known(tensors: tuple[Any, ...], delta_softplus: bool, reverse: list[bool]) -> ScanArguments:
    """`_arguments` of real tensors. Where it left them as they are, those of that kind are not looked at again."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx = tensors
    blocks = tuple(reverse)
    given = ScanArguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, blocks, initial_state, seq_idx)
    given.kind = kind_of(given)
    if not given.kind.as_operator:
        arguments = _arguments(tensors, delta_softplus, reverse)
        if any(getattr(arguments, name) is not tensor for name, tensor in zip(_TENSORS, tensors, strict=True)):
            return arguments
        given.kind.as_operator = True
    return given


def _backend(name: str, arguments: ScanArguments) -> CompiledBackend:
    return cast(CompiledBackend, backend_for(_NAME, name, arguments))


def _forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, delta_softplus, reverse, backend, keep = inputs
    arguments = _known(tuple(tensors), delta_softplus, reverse)
    y, final_state, kept = _backend(backend, arguments).forward(arguments, need_backward=keep)
    return y, final_state, y.new_empty(0, dtype=arguments.state_dtype) if kept is None else kept


def _fake_forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, delta_softplus, reverse, backend, keep = inputs
    arguments = _arguments(tuple(tensors), delta_softplus, reverse)
    u, dtype = arguments.u, arguments.state_dtype
    shape = _backend(backend, arguments).kept_shape(arguments) if keep else (0,)
    final_state = u.new_empty((u.shape[0], u.shape[2], arguments.A.shape[1]), dtype=dtype)
    return u.new_empty(u.shape), final_state, u.new_empty(shape, dtype=dtype)


def _backward(*inputs: Any) -> tuple[Tensor, ...]:
    grad_y, grad_final_state, kept, *tensors, delta_softplus, reverse, backend = inputs
    arguments = _known(tuple(tensors), delta_softplus, reverse)
    module = _backend(backend, arguments)
    if kept.numel() == 0:  # the forward pass was told to keep nothing
        kept = cast(Tensor, module.forward(arguments, need_backward=True)[2])
    gradients = differentiate(module, arguments, kept, grad_y, grad_final_state)
    found = (getattr(gradients, name) for name in DIFFERENTIABLE)
    return tuple(arguments.u.new_empty(0) if tensor is None else tensor for tensor in found)


def _fake_backward(*inputs: Any) -> tuple[Tensor, ...]:
    _, _, _, *tensors, _, _, _, _ = inputs
    return tuple(inputs[3].new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in tensors)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, delta_softplus, reverse, backend, _ = inputs
    ctx.save_for_backward(output[2], *tensors)
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.options = (delta_softplus, list(reverse), backend)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None, _: Any) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    found = torch.ops.genossm.selective_scan_backward(grad_y, grad_final_state, kept, *tensors, *ctx.options)
    return (*given(found, tuple(tensors[:-1])), None, None, None, None, None)


register(
    _NAME,
    f"({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    autograd=(_save, _differentiate),
)
register(
    f"{_NAME}_backward",
    f"(Tensor? grad_y, Tensor? grad_final_state, Tensor kept, {_INPUTS}) -> ({', '.join(['Tensor'] * 9)})",
    _backward,
    _fake_backward,
)

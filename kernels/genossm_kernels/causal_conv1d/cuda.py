"""The GPU back end: CUDA C++ compiled at run time (cuda_kernels.cu, cuda_wide.cu)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, address, launcher_for, unavailable_reason
from genossm_kernels._cuda.program import Layout, Program
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients, kind_of
from genossm_kernels.causal_conv1d.cuda_plan import DTYPES, Rows, backward_plan, forward_plan

PLACES = True
_WIDEST = 128
_LARGEST_BLOCKS = 64  # bits of `reversed_blocks`


def unavailable(call: ConvCall) -> str | None:
    """None if this device and such arguments are within what the kernels do."""
    if call.dtype not in DTYPES:
        return f"it takes float32, bfloat16 and float16, not {call.dtype}"
    if call.width > _WIDEST:
        return f"it takes a width up to {_WIDEST}, not {call.width}"
    if len(call.reverse) > _LARGEST_BLOCKS:
        return f"it takes up to {_LARGEST_BLOCKS} blocks of channels in `reverse`, not {len(call.reverse)}"
    return unavailable_reason(call.device)


class _Forward(NamedTuple):
    """What calls of one kind share."""

    program: Program
    y: Layout
    final_state: Layout


class _Backward(NamedTuple):
    """The same of the backward pass."""

    program: Program
    x: Layout
    weight: Layout
    bias: Layout | None
    initial_state: Layout | None
    partial: Layout


def forward(arguments: ConvArguments, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y and the final state; the backward pass recomputes what it needs from the inputs."""
    launcher = launcher_for(arguments.x.device)
    return launcher.run(_forward, launcher, arguments, y)


def _forward(stream: Any, launcher: Launcher, a: ConvArguments, y: Tensor | None) -> tuple[Tensor, Tensor]:
    x, strides = a.x.data_ptr(), None if y is None else y.stride()
    start = x if y is None else x | y.data_ptr()
    prepared, key = (a.kind or kind_of(a)).prepared, (launcher, start % 16, strides)
    call = prepared.get(key)
    if call is None:
        call = prepared[key] = _prepare_forward(launcher, a, start, strides)
    final_state = launcher.empty(call.final_state)
    if y is None:
        y = launcher.empty(call.y)
    inputs = (x, address(a.initial_state), a.weight.data_ptr(), address(a.bias), address(a.seq_idx))
    call.program.run(stream, *inputs, y.data_ptr(), final_state.data_ptr())
    return y, final_state


def backward(
    arguments: ConvArguments,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    *,
    grad_x: Tensor | None = None,
    add: bool = False,
) -> ConvGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    launcher = launcher_for(arguments.x.device)
    return launcher.run(_backward, launcher, arguments, grad_y, grad_final_state, grad_x, add)


def _backward(
    stream: Any,
    launcher: Launcher,
    a: ConvArguments,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    grad_x: Tensor | None,
    add: bool,
) -> ConvGradients:
    x, gradient, written = a.x.data_ptr(), grad_y.data_ptr(), address(grad_x)
    strides = None if grad_x is None else grad_x.stride()
    prepared, key = (
        (a.kind or kind_of(a)).prepared,
        (launcher, (x | gradient | written) % 16, grad_y.stride(), grad_final_state is None, strides, add),
    )
    call = prepared.get(key)
    if call is None:
        start, states = x | gradient | written, a.initial_state is not None or grad_final_state is not None
        call = _prepare_backward(launcher, a, start, grad_y.stride(), strides, states=states, add=add)
        prepared[key] = call
    if grad_x is None:
        grad_x = launcher.empty(call.x)
    weight, partial = launcher.empty(call.weight), launcher.empty(call.partial)
    bias = None if call.bias is None else launcher.empty(call.bias)
    initial = None if call.initial_state is None else launcher.empty(call.initial_state)
    call.program.run(
        stream,
        *(x, gradient, address(a.initial_state), address(grad_final_state)),
        *(a.weight.data_ptr(), address(a.bias), address(a.seq_idx)),
        *(grad_x.data_ptr(), address(initial), partial.data_ptr(), weight.data_ptr(), address(bias)),
    )
    return ConvGradients(x=grad_x, weight=weight, bias=bias, initial_state=initial)


def _prepare_forward(launcher: Launcher, a: ConvArguments, start: int, written: tuple[int, ...] | None) -> _Forward:
    """start: addresses of rows, or-ed.   written: strides of the caller's memory for y, if there is any."""
    batch, _, channels = a.x.shape
    y = Layout.of(a.x.shape, a.x.dtype)
    final_state = Layout.of((batch, a.weight.shape[1] - 1, channels), a.x.dtype)
    p, launches = forward_plan(launcher, a, Rows(start, (a.x.stride(), written or y.strides)))
    p.y_batch, p.y_row, _ = written or y.strides
    addresses = ("x", "initial_state", "weight", "bias", "seq_idx", "y", "final_state")
    return _Forward(Program(launches, p, addresses), y, final_state)


def _prepare_backward(
    launcher: Launcher,
    a: ConvArguments,
    start: int,
    grad_y: tuple[int, ...],
    grad_x: tuple[int, ...] | None,
    *,
    states: bool,
    add: bool,
) -> _Backward:
    """start: addresses of rows, or-ed.   grad_y, grad_x: strides, of the caller's memory for grad_x if there is any."""
    channels, width = a.weight.shape
    own, weight = Layout.of(a.x.shape, a.x.dtype), Layout.of(a.weight.shape, torch.float32)
    rows = Rows(start, (a.x.stride(), grad_y, grad_x or own.strides))
    p, launches = backward_plan(launcher, a, rows, states=states, add=add)
    p.grad_y_batch, p.grad_y_row, _ = grad_y
    p.grad_x_batch, p.grad_x_row, _ = grad_x or own.strides
    addresses = (
        *("x", "grad_y", "initial_state", "grad_final_state", "weight", "bias", "seq_idx"),
        *("grad_x", "grad_initial_state", "weight_partial", "grad_weight", "grad_bias"),
    )
    return _Backward(
        program=Program(launches, p, addresses),
        x=own,
        weight=weight,
        bias=None if a.bias is None else Layout.of((channels,), torch.float32),
        initial_state=None if a.initial_state is None else Layout.of(a.initial_state.shape, a.x.dtype),
        partial=Layout.of((p.batch * p.chunks, channels, width + 1), torch.float32),
    )

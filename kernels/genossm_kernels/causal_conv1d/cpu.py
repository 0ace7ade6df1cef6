"""`causal_conv1d` on CPUs: buffers and addresses for the compiled loops of `cpu_kernels`.

bfloat16 and float16 inputs are widened to float32 first, and their results narrowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm_kernels._cpu.blocks import cut
from genossm_kernels._cpu.buffers import new_buffer
from genossm_kernels._cpu.kernel import address, sum_in_order
from genossm_kernels.causal_conv1d import cpu_kernels
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients

# Channels walk the sequence in blocks of this many vectors.
_VECTORS = 4


def unavailable(call: ConvCall) -> str | None:
    if call.device.type != "cpu":
        return f"the tensors are on {call.device}"
    return None


def forward(arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the final state; the backward pass needs nothing kept."""
    dtype, threads = arguments.state_dtype, torch.get_num_threads()
    x = arguments.x.to(dtype)
    batch, length, channels = x.shape
    width = arguments.weight.shape[1]
    y = new_buffer(batch, length, channels, dtype=dtype)
    final_state = torch.empty(batch, width - 1, channels, dtype=dtype)
    scratch = torch.empty(threads, cpu_kernels.forward_scratch(64 // dtype.itemsize, _VECTORS, width), dtype=dtype)
    initial_state = _initial_state(arguments)
    outputs = {"y": y.data_ptr(), "final_state": final_state.data_ptr()}
    fields = _fields(arguments, x, initial_state, scratch, outputs)
    cpu_kernels.conv_forward(dtype, fields, tasks=fields.tasks, work=_work(arguments), threads=threads)
    return y.to(arguments.x.dtype), final_state.to(arguments.x.dtype)


def backward(arguments: ConvArguments, grad_y: Tensor, grad_final_state: Tensor | None) -> ConvGradients:
    """Every gradient, from the inputs alone."""
    dtype, threads = arguments.state_dtype, torch.get_num_threads()
    x, grad_y = arguments.x.to(dtype), grad_y.to(dtype)
    batch, length, channels = x.shape
    width = arguments.weight.shape[1]
    initial_state = _initial_state(arguments)
    grad_final_state = None if grad_final_state is None else grad_final_state.to(dtype)
    grad_x = new_buffer(batch, length, channels, dtype=dtype)
    weight_parts = torch.empty(batch, channels, width, dtype=dtype)
    bias_parts = torch.empty(batch, channels, dtype=dtype)
    grad_initial_state = None if initial_state is None else torch.empty_like(initial_state)
    scratch = torch.empty(threads, cpu_kernels.backward_scratch(64 // dtype.itemsize, _VECTORS, width), dtype=dtype)
    outputs = {
        "grad_y": grad_y.data_ptr(),
        "grad_y_batch": grad_y.stride(0),
        "grad_y_step": grad_y.stride(1),
        "grad_final_state": address(grad_final_state),
        "grad_x": grad_x.data_ptr(),
        "weight_parts": weight_parts.data_ptr(),
        "bias_parts": bias_parts.data_ptr(),
        "grad_initial_state": address(grad_initial_state),
    }
    fields = _fields(arguments, x, initial_state, scratch, outputs)
    cpu_kernels.conv_backward(dtype, fields, tasks=fields.tasks, work=4 * _work(arguments), threads=threads)
    narrow = arguments.x.dtype
    return ConvGradients(
        x=grad_x.to(narrow),
        weight=sum_in_order(weight_parts),
        bias=None if arguments.bias is None else sum_in_order(bias_parts),
        initial_state=None if grad_initial_state is None else grad_initial_state.to(narrow),
    )


def _initial_state(arguments: ConvArguments) -> Tensor | None:
    return None if arguments.initial_state is None else arguments.initial_state.to(arguments.state_dtype)


def _fields(
    arguments: ConvArguments, x: Tensor, initial_state: Tensor | None, scratch: Tensor, outputs: dict[str, int]
) -> cpu_kernels.ConvFields:
    batch, length, channels = x.shape
    width = arguments.weight.shape[1]
    blocks = cut(channels, 1, arguments.reverse, 64 // x.dtype.itemsize, _VECTORS)
    return cpu_kernels.ConvFields(
        x=x.data_ptr(),
        weight=arguments.weight.data_ptr(),
        bias=address(arguments.bias),
        initial_state=address(initial_state),
        seq_idx=address(arguments.seq_idx),
        x_batch=x.stride(0),
        x_step=x.stride(1),
        silu=arguments.silu,
        length=length,
        channels=channels,
        width=width,
        rows=cpu_kernels.staged_rows(width),
        weight_rows=cpu_kernels.weight_rows(width),
        blocks=blocks.table.data_ptr(),
        block_count=blocks.number,
        tasks=batch * blocks.number,
        scratch=scratch.data_ptr(),
        scratch_size=scratch.shape[1],
        **outputs,
    )


def _work(arguments: ConvArguments) -> int:
    """About how many nanoseconds one thread needs: a third and a bit a tap for each channel and position."""
    return arguments.x.numel() * (16 + arguments.weight.shape[1]) // 48

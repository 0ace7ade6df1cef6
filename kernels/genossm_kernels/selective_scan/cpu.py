"""`selective_scan` on CPUs: buffers and addresses for the compiled loops of `cpu_forward`, `_backward` and `_steps`.

bfloat16 and float16 inputs are widened to float32 first, and their results narrowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm_kernels._cpu.blocks import Blocks, cut, lanes
from genossm_kernels._cpu.buffers import new_buffer
from genossm_kernels._cpu.kernel import address, sum_in_order
from genossm_kernels.checks import plain_size
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall, ScanGradients
from genossm_kernels.selective_scan.cpu_backward import backward_scratch, scan_backward
from genossm_kernels.selective_scan.cpu_blocks import ScanFields
from genossm_kernels.selective_scan.cpu_forward import forward_scratch, scan_forward
from genossm_kernels.selective_scan.cpu_steps import scan_steps, steps_scratch

# A block of channels: its rows are whole cache lines, and with few channels there are still blocks for every core.
_VECTORS = 4
# Positions between two states that the forward pass keeps for the backward pass; whole vectors of either dtype. What a
# chunk of one vector of channels needs then stays in a first-level cache of 32 KiB.
_CHUNK = 32
# Below this length turning the states around costs more than it saves.
_STEPS = 8
_STEP_VECTORS = 32


def unavailable(call: ScanCall) -> str | None:
    if call.device.type != "cpu":
        return f"the tensors are on {call.device}"
    return None


def kept_shape(arguments: ScanArguments) -> tuple[int, ...]:
    """A state before every chunk, its channels padded to whole vectors."""
    batch, length, channels = arguments.u.shape
    groups, states = arguments.B.shape[2:]
    width = 64 // arguments.state_dtype.itemsize
    padded = lanes(plain_size(channels), plain_size(groups), arguments.reverse, width, _VECTORS)
    return (batch, -(-length // _CHUNK), padded, states)


def forward(arguments: ScanArguments, *, need_backward: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, the final state, and the state before every chunk where a backward pass will follow."""
    wide = _widened(arguments)
    batch, length, channels = wide.u.shape
    states, dtype, threads = wide.A.shape[1], wide.u.dtype, torch.get_num_threads()
    y = new_buffer(batch, length, channels, dtype=dtype)
    final_state = torch.empty(batch, channels, states, dtype=dtype)
    width = 64 // dtype.itemsize
    in_steps = length < _STEPS and not need_backward
    blocks = cut(channels, wide.B.shape[2], wide.reverse, width, _STEP_VECTORS if in_steps else _VECTORS)
    if in_steps:
        scratch_size = steps_scratch(width, _STEP_VECTORS)
    else:
        scratch_size = forward_scratch(width, _VECTORS, states)
    scratch = torch.empty(threads, scratch_size, dtype=dtype)
    shape = (batch, -(-length // _CHUNK), blocks.lanes, states)
    kept = new_buffer(*shape, dtype=dtype) if need_backward else None
    outputs = {"y": y.data_ptr(), "final_state": final_state.data_ptr()}
    fields = _fields(wide, blocks, scratch, kept, outputs)
    kernel = scan_steps if in_steps else scan_forward
    kernel(dtype, fields, tasks=fields.tasks, work=_work(wide), threads=threads)
    return y.to(arguments.u.dtype), final_state, kept


def backward(arguments: ScanArguments, kept: Tensor, grad_y: Tensor, grad_final_state: Tensor | None) -> ScanGradients:
    """Every gradient, from the states that `forward` kept."""
    wide = _widened(arguments)
    grad_y = grad_y.to(wide.u.dtype)
    batch, length, channels = wide.u.shape
    groups, states = wide.B.shape[2:]
    dtype, threads = wide.u.dtype, torch.get_num_threads()
    width = 64 // dtype.itemsize
    blocks = cut(channels, groups, wide.reverse, width, _VECTORS)
    scratch = torch.empty(threads, backward_scratch(width, _VECTORS, states, _CHUNK), dtype=dtype)
    grad_u, grad_delta = (new_buffer(batch, length, channels, dtype=dtype) for _ in range(2))
    grad_z = None if wide.z is None else new_buffer(batch, length, channels, dtype=dtype)
    A_parts, grad_initial_state = (torch.empty(batch, channels, states, dtype=dtype) for _ in range(2))
    D_parts, bias_parts = (torch.empty(batch, channels, dtype=dtype) for _ in range(2))
    # Each block of channels adds up its own share of a group's gradient; a group with fewer blocks leaves zeros.
    new = new_buffer if blocks.uniform else torch.zeros
    B_parts, C_parts = (new(blocks.slots, batch, length, groups, states, dtype=dtype) for _ in range(2))
    outputs = {
        "grad_y": grad_y.data_ptr(),
        "grad_y_batch": grad_y.stride(0),
        "grad_y_step": grad_y.stride(1),
        "grad_final_state": address(grad_final_state),
        "grad_u": grad_u.data_ptr(),
        "grad_delta": grad_delta.data_ptr(),
        "grad_z": address(grad_z),
        "A_parts": A_parts.data_ptr(),
        "B_parts": B_parts.data_ptr(),
        "C_parts": C_parts.data_ptr(),
        "D_parts": D_parts.data_ptr(),
        "bias_parts": bias_parts.data_ptr(),
        "grad_initial_state": grad_initial_state.data_ptr(),
        "parts_stride": B_parts[0].numel(),
    }
    fields = _fields(wide, blocks, scratch, kept, outputs)
    scan_backward(dtype, fields, tasks=fields.tasks, work=3 * _work(wide), threads=threads)
    narrow = arguments.u.dtype
    return ScanGradients(
        u=grad_u.to(narrow),
        delta=grad_delta.to(narrow),
        A=sum_in_order(A_parts),
        B=sum_in_order(B_parts).to(narrow),
        C=sum_in_order(C_parts).to(narrow),
        D=None if wide.D is None else sum_in_order(D_parts),
        z=None if grad_z is None else grad_z.to(narrow),
        delta_bias=None if wide.delta_bias is None else sum_in_order(bias_parts),
        initial_state=None if wide.initial_state is None else grad_initial_state,
    )


def _widened(arguments: ScanArguments) -> ScanArguments:
    dtype = arguments.state_dtype
    if arguments.u.dtype == dtype:
        return arguments
    return ScanArguments(
        arguments.u.to(dtype),
        arguments.delta.to(dtype),
        arguments.A,
        arguments.B.to(dtype),
        arguments.C.to(dtype),
        arguments.D,
        None if arguments.z is None else arguments.z.to(dtype),
        arguments.delta_bias,
        arguments.delta_softplus,
        arguments.reverse,
        arguments.initial_state,
        arguments.seq_idx,
    )


def _fields(
    arguments: ScanArguments, blocks: Blocks, scratch: Tensor, checkpoints: Tensor | None, outputs: dict[str, int]
) -> ScanFields:
    u, delta, B, C, z = arguments.u, arguments.delta, arguments.B, arguments.C, arguments.z
    batch, length, channels = u.shape
    return ScanFields(
        u=u.data_ptr(),
        delta=delta.data_ptr(),
        A=arguments.A.data_ptr(),
        B=B.data_ptr(),
        C=C.data_ptr(),
        D=address(arguments.D),
        z=address(z),
        delta_bias=address(arguments.delta_bias),
        initial_state=address(arguments.initial_state),
        seq_idx=address(arguments.seq_idx),
        u_batch=u.stride(0),
        u_step=u.stride(1),
        delta_batch=delta.stride(0),
        delta_step=delta.stride(1),
        B_batch=B.stride(0),
        B_step=B.stride(1),
        B_group=B.stride(2),
        C_batch=C.stride(0),
        C_step=C.stride(1),
        C_group=C.stride(2),
        z_batch=0 if z is None else z.stride(0),
        z_step=0 if z is None else z.stride(1),
        delta_softplus=arguments.delta_softplus,
        length=length,
        channels=channels,
        states=B.shape[3],
        groups=B.shape[2],
        blocks=blocks.table.data_ptr(),
        block_count=blocks.number,
        lanes=blocks.lanes,
        tasks=batch * blocks.number,
        chunk=_CHUNK,
        scratch=scratch.data_ptr(),
        scratch_size=scratch.shape[1],
        checkpoints=address(checkpoints),
        **outputs,
    )


def _work(arguments: ScanArguments) -> int:
    """About how many nanoseconds one thread needs: a quarter for each channel, state and position."""
    return arguments.u.numel() * arguments.A.shape[1] // 4

"""The fused GPU back end: CUDA C++ compiled at run time (cuda_forward.cu, cuda_backward.cu; CUDA.md derives them)."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, address, launcher_for, unavailable_reason
from genossm_kernels.checks import plain_size
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall, ScanGradients, ScanTargets
from genossm_kernels.selective_scan.cuda_parameters import ScanParameters
from genossm_kernels.selective_scan.cuda_plan import CHECKPOINT, DTYPES, SCRATCH_FLOATS, Plan, Shape, plan_for

PLACES = True
_LARGEST_STATE = 64
_LARGEST_BLOCKS = 64  # bits of `reversed_blocks`


def unavailable(call: ScanCall) -> str | None:
    """None if this device and such arguments are within what the kernels do."""
    if call.dtype not in DTYPES:
        return f"it takes float32, bfloat16 and float16, not {call.dtype}"
    if call.d_state > _LARGEST_STATE:
        return f"it takes d_state up to {_LARGEST_STATE}, not {call.d_state}"
    if len(call.reverse) > _LARGEST_BLOCKS:
        return f"it takes up to {_LARGEST_BLOCKS} blocks of channels in `reverse`, not {len(call.reverse)}"
    return unavailable_reason(call.device)


def kept_shape(arguments: ScanArguments) -> tuple[int, ...]:
    """A state before every CHECKPOINT-th step."""
    batch, length, channels = arguments.u.shape
    return (batch, -(-length // CHECKPOINT), channels, _padded(plain_size(arguments.A.shape[1])))


def forward(
    arguments: ScanArguments, *, need_backward: bool, y: Tensor | None = None, add: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, the final state, and for the backward pass the state entering every CHECKPOINT-th step."""
    launcher, u = launcher_for(arguments.u.device), arguments.u
    batch, _, channels = u.shape
    if y is None:
        y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    plan, p = _prepare(arguments, launcher, None, y)
    final_state = torch.empty((batch, channels, arguments.A.shape[1]), dtype=torch.float32, device=u.device)
    p.y, p.final_state = y.data_ptr(), final_state.data_ptr()
    kept = torch.empty(kept_shape(arguments), dtype=torch.float32, device=u.device) if need_backward else None
    if kept is not None:
        p.checkpoints = kept.data_ptr()
    work = _point_to_work(p, _segment_work(u, plan), u.device)

    module, threads = plan.forward_module(launcher, add), 32 * plan.warps
    with launcher.active() as stream:
        if plan.segments > 1:
            blocks = -(-batch * (plan.segments - 1) * plan.tiles // plan.warps)
            module.launch(stream, "segment_states", blocks, threads, plan.state_bytes, p)
            module.launch(stream, "carry_states", _carry_blocks(u, plan), 256, 0, p)
        blocks = -(-batch * plan.segments * plan.tiles // plan.warps)
        module.launch(stream, "outputs", blocks, threads, plan.output_bytes, p)
    del work  # until here no one else may get its memory
    return y, final_state, kept


def backward(
    arguments: ScanArguments,
    kept: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    *,
    targets: ScanTargets | None = None,
) -> ScanGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    launcher, u = launcher_for(arguments.u.device), arguments.u
    gradients = _empty_gradients(arguments, targets)
    plan, p = _prepare(arguments, launcher, grad_y, gradients.z)
    _point_to_maps(p, gradients.B, gradients.C)
    p.add_grad_z = targets is not None and targets.add
    batch, length, channels = u.shape
    module = plan.backward_module(launcher)
    p.checkpoints, p.grad_y = kept.data_ptr(), grad_y.data_ptr()
    if grad_final_state is not None:
        p.grad_final_state = grad_final_state.data_ptr()
    for name in ("u", "delta", "A", "B", "C", "D", "z", "initial_state"):
        tensor = getattr(gradients, name)
        setattr(p, f"grad_{name}", None if tensor is None else tensor.data_ptr())
    p.grad_bias = address(gradients.delta_bias)

    threads = 32 * plan.gradient_warps
    resident = module.resident_blocks("gradients", threads, plan.gradient_bytes)
    blocks = min(resident, batch * plan.segments * plan.parts)
    sizes = _segment_work(u, plan) | {
        "scratch": blocks * plan.gradient_warps * SCRATCH_FLOATS,
        "map_partial": plan.parts * batch * length * 2 * plan.padded_state,
        "A_partial": batch * plan.segments * channels * plan.padded_state,
        "sum_partial": batch * plan.segments * 2 * channels,
    }
    work = _point_to_work(p, sizes, u.device)
    with launcher.active() as stream:
        if plan.segments > 1:
            adjoint_blocks = -(-batch * (plan.segments - 1) * plan.tiles // plan.warps)
            adjoints = plan.adjoint_module(launcher)
            adjoints.launch(stream, "segment_adjoints", adjoint_blocks, 32 * plan.warps, plan.adjoint_bytes, p)
            adjoints.launch(stream, "carry_adjoints", _carry_blocks(u, plan), 256, 0, p)
        module.launch(stream, "gradients", blocks, threads, plan.gradient_bytes, p)
        module.launch(stream, "sum_parameters", -(-channels * (plan.padded_state + 2) // 128), 128, 0, p)
        module.launch(stream, "sum_maps", -(-batch * length * plan.padded_state // 512), 256, 0, p)
    del work
    return gradients


class _Call(NamedTuple):
    """What decides the plan of a call and all of its parameters but addresses."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    maps: tuple[int, ...]
    u: tuple[int, ...]
    delta: tuple[int, ...]
    B: tuple[int, ...]
    C: tuple[int, ...]
    z: tuple[int, ...] | None
    grad_y: tuple[int, ...] | None
    written: tuple[int, ...] | None  # y, or the gradient of z
    softplus: bool
    reverse: tuple[bool, ...]
    packed: bool
    rows_aligned: bool  # of the addresses, to 16 bytes
    maps_aligned: bool


def _prepare(
    arguments: ScanArguments, launcher: Launcher, grad_y: Tensor | None, written: Tensor | None
) -> tuple[Plan, ScanParameters]:
    """The plan, and parameters with sizes, strides and the inputs' addresses."""
    a, u, z = arguments, arguments.u, arguments.z
    rows, maps = u.data_ptr() | a.delta.data_ptr(), a.B.data_ptr() | a.C.data_ptr()
    if z is not None:
        rows |= z.data_ptr()
    if grad_y is not None:
        rows |= grad_y.data_ptr()
    if written is not None:
        rows |= written.data_ptr()
    call = _Call(
        u.dtype,
        u.shape,
        a.B.shape,
        u.stride(),
        a.delta.stride(),
        a.B.stride(),
        a.C.stride(),
        None if z is None else z.stride(),
        None if grad_y is None else grad_y.stride(),
        None if written is None else written.stride(),
        a.delta_softplus,
        a.reverse,
        a.seq_idx is not None,
        rows % 16 == 0,
        maps % 16 == 0,
    )
    plan, template = _plan(launcher, call)
    p = ScanParameters.from_buffer_copy(template)
    p.u, p.delta, p.A, p.B, p.C = u.data_ptr(), a.delta.data_ptr(), a.A.data_ptr(), a.B.data_ptr(), a.C.data_ptr()
    p.D, p.z, p.bias = address(a.D), address(z), address(a.delta_bias)
    p.initial_state, p.seq_idx = address(a.initial_state), address(a.seq_idx)
    return plan, p


@functools.lru_cache(maxsize=1024)
def _plan(launcher: Launcher, call: _Call) -> tuple[Plan, bytes]:
    """The plan, and the parameters without addresses."""
    batch, length, channels = call.shape
    groups, d_state = call.maps[2:]
    blocks, vector = len(call.reverse), 16 // call.dtype.itemsize
    rows = (call.u, call.delta, call.z, call.grad_y, call.written)
    shape = Shape(
        dtype=call.dtype,
        batch=batch,
        length=length,
        channels=channels,
        d_state=d_state,
        groups=groups,
        blocks=blocks,
        softplus=call.softplus,
        gate=call.z is not None,
        packed=call.packed,
        aligned=call.rows_aligned
        and channels // math.lcm(blocks, groups) % vector == 0
        and all(_whole(strides, vector) for strides in rows),
        aligned_maps=call.maps_aligned and d_state % vector == 0 and _whole(call.B, vector) and _whole(call.C, vector),
    )
    plan = plan_for(launcher, shape)
    p = ScanParameters()
    p.u_batch, p.u_row, _ = call.u
    p.delta_batch, p.delta_row, _ = call.delta
    p.z_batch, p.z_row = (call.z or (0, 0))[:2]
    p.grad_y_batch, p.grad_y_row = (call.grad_y or (0, 0))[:2]
    p.y_batch, p.y_row = p.grad_z_batch, p.grad_z_row = (call.written or (0, 0))[:2]
    p.B_batch, p.B_row, p.B_group, _ = call.B
    p.C_batch, p.C_row, p.C_group, _ = call.C
    p.batch, p.length, p.channels = batch, length, channels
    p.d_state, p.groups, p.blocks = d_state, groups, blocks
    p.reversed_blocks = sum(1 << index for index, reverse in enumerate(call.reverse) if reverse)
    p.runs, p.tiles_per_run, p.parts_per_run = plan.runs, plan.tiles_per_run, plan.parts_per_run
    p.segment_length, p.segments, p.checkpoint = plan.segment_length, plan.segments, CHECKPOINT
    return plan, bytes(p)


def _whole(strides: tuple[int, ...] | None, vector: int) -> bool:
    """Whether each row begins a whole number of vectors after another."""
    return strides is None or not any(stride % vector for stride in strides[:-1])


def _padded(states: int) -> int:
    """As the kernels hold them: 4, 8, 16, 32 or 64."""
    return max(4, 1 << (states - 1).bit_length())


def _segment_work(u: Tensor, plan: Plan) -> dict[str, int]:
    if plan.segments == 1:
        return {}
    cells = u.shape[0] * plan.segments * u.shape[2]
    return {"segment_state": cells * plan.padded_state, "segment_sum": cells}


def _point_to_work(p: ScanParameters, sizes: dict[str, int], device: torch.device) -> Tensor:
    """One allocation for all work space: floats by name, each part on 256 bytes."""
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += -(-size // 64) * 64
    work = torch.empty(total, dtype=torch.float32, device=device)
    start = work.data_ptr()
    for name, offset in offsets.items():
        setattr(p, name, start + 4 * offset)
    return work


def _carry_blocks(u: Tensor, plan: Plan) -> int:
    return -(-u.shape[0] * u.shape[2] * plan.padded_state // 256)


def _point_to_maps(p: ScanParameters, B: Tensor, C: Tensor) -> None:
    """Where the gradients of B and C have their rows."""
    p.grad_B_batch, p.grad_B_row = B.stride()[:2]
    p.grad_C_batch, p.grad_C_row = C.stride()[:2]
    begins = (B.data_ptr() | C.data_ptr()) % (4 * B.element_size()) == 0
    p.whole_map_rows = begins and not any(step % 4 for step in (*B.stride()[:2], *C.stride()[:2], B.shape[3]))


def _empty_gradients(arguments: ScanArguments, targets: ScanTargets | None) -> ScanGradients:
    given = {} if targets is None else {"z": targets.z, "B": targets.B, "C": targets.C}

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    made = {name: like(getattr(arguments, name)) for name in names if name not in given}
    return ScanGradients(**given, **made)  # type: ignore[arg-type]

"""What calls of one kind share on a GPU: launches, parameters without addresses, and the memory to be made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from genossm_kernels._cuda.launch import Launcher, Module
from genossm_kernels._cuda.program import Launch, Layout, Program
from genossm_kernels.selective_scan.contract import ScanArguments
from genossm_kernels.selective_scan.cuda_parameters import ScanParameters
from genossm_kernels.selective_scan.cuda_plan import Plan, Shape, plan_for

Strides = tuple[int, ...]
_CARRY_THREADS = 32 * 8  # CARRY_WARPS of cuda_segments.cuh
_CARRY_BYTES = 8 * _CARRY_THREADS
_SUM_THREADS = 256  # SUM_THREADS of cuda_sums.cuh

# What a call fills in, in the order of the structure.
# fmt: off
_FORWARD = (
    "u", "delta", "B", "C", "z", "A", "D", "bias", "initial_state", "seq_idx", "y", "final_state",
    "segment_state", "segment_sum", "checkpoints",
)
_BACKWARD = (
    "u", "delta", "B", "C", "z", "grad_y", "A", "D", "bias", "initial_state", "grad_final_state", "seq_idx",
    "grad_u", "grad_delta", "grad_z", "grad_B", "grad_C", "grad_A", "grad_D", "grad_bias", "grad_initial_state",
    "segment_state", "segment_sum", "checkpoints", "scratch", "map_partial", "A_partial", "sum_partial",
)
# fmt: on


class ForwardCall(NamedTuple):
    program: Program
    y: Layout
    final_state: Layout
    kept: Layout | None
    work: Layout | None  # of segments; `sums` bytes from its start are sums of steps
    sums: int


class Places(NamedTuple):
    """Memory of the caller's for gradients: strides, and whether rows of B and C begin on four elements."""

    add: bool
    z: Strides
    B: Strides
    C: Strides
    whole: bool


class BackwardCall(NamedTuple):
    program: Program
    gradients: tuple[Layout | None, ...]  # in the order of ScanGradients; None for what is not there or is the caller's
    work: Layout
    offsets: tuple[
        int, ...
    ]  # bytes from its start to the arrays of _BACKWARD from `segment_state` on but `checkpoints`


def prepare_forward(
    launcher: Launcher,
    a: ScanArguments,
    rows: int,
    maps: int,
    *,
    need_backward: bool,
    strides: Strides | None,
    add: bool,
) -> ForwardCall:
    """rows, maps: addresses of activations, of B and C, or-ed.   strides: of the caller's memory for y."""
    y = Layout.of(a.u.shape, a.u.dtype)
    plan = plan_for(launcher, shape_of(a, rows, maps, strides or y.strides, adds=add))
    p = parameters_of(a, plan)
    p.y_batch, p.y_row, _ = strides or y.strides
    launches = _forward_launches(plan.forward_module(launcher, add), a, plan, len(bytes(p)), add)
    offsets, floats = _side_by_side(_segment_work(a, plan))
    final_state, kept = forward_layouts(a, plan, need_backward)
    return ForwardCall(
        program=Program(launches, p, _FORWARD),
        y=y,
        final_state=final_state,
        kept=kept,
        work=Layout.of((floats,), torch.float32) if floats else None,
        sums=offsets[1],
    )


def forward_layouts(a: ScanArguments, plan: Plan, need_backward: bool) -> tuple[Layout, Layout | None]:
    """Of the final state, and of the states that the backward pass wants kept."""
    batch, length, channels = a.u.shape
    kept = (batch, -(-length // plan.checkpoint), channels, plan.padded_state)
    final_state = Layout.of((batch, channels, a.A.shape[1]), torch.float32)
    return final_state, Layout.of(kept, torch.float32) if need_backward else None


def _forward_launches(module: Module, a: ScanArguments, plan: Plan, size: int, add: bool) -> list[Launch]:
    """size: bytes of parameters."""
    if plan.chain is not None:
        chain = plan.chain
        shared_bytes = chain.shared_bytes + (chain.adding_bytes if add else 0)
        return [module.bind("chain", chain.blocks, 32 * chain.turns.warps, shared_bytes, size)]
    batch, threads, launches = a.u.shape[0], 32 * plan.forward.warps, []
    if plan.segments > 1:
        blocks = -(-batch * (plan.segments - 1) * plan.tiles // plan.forward.warps)
        launches.append(module.bind("segment_states", blocks, threads, plan.forward.state_bytes, size))
        launches.append(module.bind("carry_states", _carry_blocks(a, plan), _CARRY_THREADS, _CARRY_BYTES, size))
    blocks = -(-batch * plan.segments * plan.tiles // plan.forward.warps)
    return [*launches, module.bind("outputs", blocks, threads, plan.forward.output_bytes, size)]


def prepare_backward(
    launcher: Launcher, a: ScanArguments, rows: int, maps: int, grad_y: Strides, targets: tuple[object, ...] | None
) -> BackwardCall:
    """targets: the fields of `Places`."""
    batch, length, channels = a.u.shape
    places = _own_places(a) if targets is None else Places(*targets)  # type: ignore[arg-type]
    plan = plan_for(launcher, shape_of(a, rows, maps, places.z, grad_y))
    p = parameters_of(a, plan)
    p.grad_y_batch, p.grad_y_row, _ = grad_y
    _describe_places(p, places, a.A.shape[1])
    launches, blocks = _backward_launches(launcher, a, plan, len(bytes(p)))
    sizes = _segment_work(a, plan) | {
        "scratch": blocks * plan.gradients.warps * plan.scratch_floats,
        "map_partial": plan.parts * batch * length * 2 * plan.padded_state,
        "A_partial": batch * plan.segments * channels * plan.padded_state,
        "sum_partial": batch * plan.segments * 2 * channels,
    }
    offsets, floats = _side_by_side(sizes)
    return BackwardCall(
        Program(launches, p, _BACKWARD), _layouts(a, targets is not None), Layout.of((floats,), torch.float32), offsets
    )


def _backward_launches(launcher: Launcher, a: ScanArguments, plan: Plan, size: int) -> tuple[list[Launch], int]:
    """And the blocks of `gradients`, each with scratch of its own.   size: bytes of parameters."""
    (batch, length, channels), launches = a.u.shape, []
    if plan.segments > 1:
        blocks, threads = -(-batch * (plan.segments - 1) * plan.tiles // plan.forward.warps), 32 * plan.forward.warps
        adjoints = plan.adjoint_module(launcher)
        launches.append(adjoints.bind("segment_adjoints", blocks, threads, plan.forward.adjoint_bytes, size))
        launches.append(adjoints.bind("carry_adjoints", _carry_blocks(a, plan), _CARRY_THREADS, _CARRY_BYTES, size))
    module, threads = plan.backward_module(launcher), 32 * plan.gradients.warps
    resident = module.resident_blocks("gradients", threads, plan.gradients.shared_bytes)
    blocks = min(resident, batch * plan.segments * plan.parts)
    launches.append(module.bind("gradients", blocks, threads, plan.gradients.shared_bytes, size))
    sums = -(-channels * (plan.padded_state + 2) // _SUM_THREADS)
    sums += -(-batch * length * plan.padded_state // (2 * _SUM_THREADS))  # four of B or C a thread
    launches.append(module.bind("sum_up", sums, _SUM_THREADS, 0, size))
    return launches, blocks


def shape_of(
    a: ScanArguments,
    rows: int,
    maps: int,
    written: Strides | None,
    grad_y: Strides | None = None,
    *,
    adds: bool = False,
    both: bool = False,
) -> Shape:
    """written: strides of y, or of the gradient of z.   adds: y to what there is.   both: directions, in one launch."""
    batch, length, channels = a.u.shape
    groups, d_state = a.B.shape[2:]
    blocks, vector = len(a.reverse), 16 // a.u.dtype.itemsize
    strides = (a.u.stride(), a.delta.stride(), None if a.z is None else a.z.stride(), grad_y, written)
    return Shape(
        dtype=a.u.dtype,
        batch=batch,
        length=length,
        channels=channels,
        d_state=d_state,
        groups=groups,
        blocks=blocks,
        softplus=bool(a.delta_softplus),
        gate=a.z is not None,
        packed=a.seq_idx is not None,
        aligned=rows % 16 == 0
        and channels // math.lcm(blocks, groups) % vector == 0
        and all(_whole(row, vector) for row in strides),
        aligned_maps=maps % 16 == 0
        and d_state % vector == 0
        and _whole(a.B.stride(), vector)
        and _whole(a.C.stride(), vector),
        backward=grad_y is not None,
        adds=adds,
        both=both,
    )


def parameters_of(a: ScanArguments, plan: Plan) -> ScanParameters:
    """Sizes and the inputs' strides."""
    p = ScanParameters()
    p.u_batch, p.u_row, _ = a.u.stride()
    p.delta_batch, p.delta_row, _ = a.delta.stride()
    if a.z is not None:
        p.z_batch, p.z_row, _ = a.z.stride()
    p.B_batch, p.B_row, p.B_group, _ = a.B.stride()
    p.C_batch, p.C_row, p.C_group, _ = a.C.stride()
    p.batch, p.length, p.channels = a.u.shape
    p.groups, p.d_state = a.B.shape[2:]
    p.blocks = len(a.reverse)
    p.reversed_blocks = sum(1 << index for index, reverse in enumerate(a.reverse) if reverse)
    p.runs, p.parts_per_run = plan.runs, plan.parts_per_run
    width = None if plan.chain is None else plan.chain.turns.channels
    p.tiles_per_run = plan.forward.tiles_per_run if width is None else -(-(p.channels // plan.runs) // width)
    p.segment_length, p.segments, p.checkpoint = plan.segment_length, plan.segments, plan.checkpoint
    return p


def _own_places(a: ScanArguments) -> Places:
    """Gradients in memory of their own: contiguous."""
    rows, maps = Layout.of(a.u.shape, a.u.dtype).strides, Layout.of(a.B.shape, a.B.dtype).strides
    return Places(add=False, z=rows, B=maps, C=maps, whole=True)


def _describe_places(p: ScanParameters, places: Places, d_state: int) -> None:
    p.grad_z_batch, p.grad_z_row, _ = places.z
    p.grad_B_batch, p.grad_B_row = places.B[:2]
    p.grad_C_batch, p.grad_C_row = places.C[:2]
    p.add_grad_z = places.add
    p.whole_map_rows = places.whole and not any(step % 4 for step in (*places.B[:2], *places.C[:2], d_state))


def _layouts(a: ScanArguments, placed: bool) -> tuple[Layout | None, ...]:
    """Of the gradients that are to be made, in their order."""
    rows, maps = Layout.of(a.u.shape, a.u.dtype), Layout.of(a.B.shape, a.B.dtype)
    row = Layout.of((a.u.shape[2],), torch.float32)
    return (
        None if placed else rows,
        None if placed else rows,
        Layout.of(a.A.shape, torch.float32),
        None if placed else maps,
        None if placed else maps,
        None if a.D is None else row,
        None if placed or a.z is None else rows,
        None if a.delta_bias is None else row,
        None if a.initial_state is None else Layout.of(a.initial_state.shape, torch.float32),
    )


def _whole(strides: Strides | None, vector: int) -> bool:
    """Whether each row begins a whole number of vectors after another."""
    return strides is None or not any(stride % vector for stride in strides[:-1])


def _segment_work(a: ScanArguments, plan: Plan) -> dict[str, int]:
    cells = a.u.shape[0] * plan.segments * a.u.shape[2] if plan.segments > 1 and plan.chain is None else 0
    return {"segment_state": cells * plan.padded_state, "segment_sum": cells}


def _side_by_side(sizes: Mapping[str, int]) -> tuple[tuple[int, ...], int]:
    """Bytes from the start of one piece of memory to each of these numbers of floats, on 256 bytes; floats in all."""
    offsets, total = [], 0
    for size in sizes.values():
        offsets.append(4 * total)
        total += -(-size // 64) * 64
    return tuple(offsets), total


def _carry_blocks(a: ScanArguments, plan: Plan) -> int:
    """32 channels and state numbers each."""
    return -(-a.u.shape[0] * a.u.shape[2] * plan.padded_state // 32)

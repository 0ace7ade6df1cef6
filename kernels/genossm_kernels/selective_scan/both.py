"""Two scans over the same rows, one from either end, whose outputs are added: one launch where the back end is ours for
GPUs and that is faster, else a call each."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, address
from genossm_kernels._cuda.program import Layout, Program
from genossm_kernels.selective_scan.contract import CompiledBackend, ScanArguments, kind_of
from genossm_kernels.selective_scan.cuda_calls import forward_layouts, parameters_of, shape_of
from genossm_kernels.selective_scan.cuda_parameters import ScanParameters
from genossm_kernels.selective_scan.cuda_plan import plan_for
from genossm_kernels.selective_scan.placing import forward_into

# Memory after a scan, and what its backward pass wants kept.
After = tuple[Tensor, Tensor | None]

# fmt: off
_OWN = (
    "u", "delta", "B", "C", "z", "A", "D", "bias", "initial_state", "final_state", "checkpoints",
)
# fmt: on
_SECOND = (*(f"second_{name}" for name in _OWN), "arrivals")
_FIRST = (*_OWN[:-2], "y", *_OWN[-2:])  # in the order of the structure


class BothParameters(ctypes.Structure):
    """`Params` of cuda_chain.cu with BOTH: the second direction's arrays, then all of the first."""

    _fields_ = (*((name, ctypes.c_void_p) for name in _SECOND), *ScanParameters._fields_)


class _Call(NamedTuple):
    program: Program
    final_state: Layout
    kept: Layout | None
    arrivals: Layout


def forward_both(
    backend: CompiledBackend, first: ScanArguments, second: ScanArguments, y: Tensor, *, need_backward: bool
) -> tuple[After, After]:
    """What both put out, added, goes into `y`, rounded once in between."""
    if _alike(backend, first, second):
        launcher = backend.launcher_for(first.u.device)  # type: ignore[attr-defined]
        found = launcher.run(_forward, launcher, first, second, y, need_backward)
        if found is not None:
            return found
    options = {"need_backward": need_backward}
    return forward_into(backend, first, y, add=False, **options), forward_into(backend, second, y, add=True, **options)


def _alike(backend: CompiledBackend, first: ScanArguments, second: ScanArguments) -> bool:
    """Our kernels, and calls that differ in direction alone, as kinds do."""
    if not hasattr(backend, "launcher_for") or first.seq_idx is not None or second.seq_idx is not None:
        return False
    if len(first.reverse) != 1 or first.reverse[0] == second.reverse[0]:
        return False
    return all(
        _traits(getattr(first, name)) == _traits(getattr(second, name))
        for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "delta_softplus")
    )


def _traits(value: Any) -> Any:
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _forward(
    stream: Any, launcher: Launcher, first: ScanArguments, second: ScanArguments, y: Tensor, need_backward: bool
) -> tuple[After, After] | None:
    rows = y.data_ptr()
    maps = 0
    for a in (first, second):
        rows |= a.u.data_ptr() | a.delta.data_ptr() | address(a.z)
        maps |= a.B.data_ptr() | a.C.data_ptr()
    prepared = kind_of(first).prepared
    key = ("both", launcher, need_backward, y.stride(), rows % 16 == 0, maps % 16 == 0)
    if key not in prepared:
        prepared[key] = _prepare(launcher, first, rows, maps, y, need_backward)
    call: _Call | None = prepared[key]
    if call is None:
        return None
    after = [
        (launcher.empty(call.final_state), None if call.kept is None else launcher.empty(call.kept)) for _ in range(2)
    ]
    arrivals = launcher.empty(call.arrivals)
    own = [(a.u, a.delta, a.B, a.C, a.z, a.A, a.D, a.delta_bias, a.initial_state) for a in (second, first)]
    call.program.run(
        stream,
        *(address(tensor) for tensor in (*own[0], *after[1], arrivals)),
        *(address(tensor) for tensor in (*own[1], y, *after[0])),
    )
    del arrivals  # until here no one else may get its memory
    return after[0], after[1]


def _prepare(
    launcher: Launcher, a: ScanArguments, rows: int, maps: int, y: Tensor, need_backward: bool
) -> _Call | None:
    shape = shape_of(a, rows, maps, y.stride(), both=True)
    plan = plan_for(launcher, shape)
    if plan.chain is None:
        return None
    one = parameters_of(a, plan)
    one.y_batch, one.y_row, _ = y.stride()
    p = BothParameters.from_buffer_copy(bytes(8 * len(_SECOND)) + bytes(one))
    module, size, count = plan.both_module(launcher), ctypes.sizeof(p), plan.chain.tiles
    threads, shared_bytes = 32 * plan.chain.turns.warps, plan.chain.shared_bytes + plan.chain.adding_bytes
    launches = [
        module.bind("clear_arrivals", -(-count // 32), 32, 0, size),
        module.bind("chain", plan.chain.blocks, threads, shared_bytes, size),
    ]
    final_state, kept = forward_layouts(a, plan, need_backward)
    return _Call(Program(launches, p, (*_SECOND, *_FIRST)), final_state, kept, Layout.of((count,), torch.int32))

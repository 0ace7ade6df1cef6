"""The fused GPU back end: CUDA C++ compiled at run time (cuda_forward.cu, cuda_backward.cu; CUDA.md derives them)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, address, launcher_for, unavailable_reason
from genossm_kernels._cuda.program import Layout
from genossm_kernels.checks import plain_size
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall, ScanGradients, ScanTargets, kind_of
from genossm_kernels.selective_scan.cuda_calls import prepare_backward, prepare_forward
from genossm_kernels.selective_scan.cuda_plan import DTYPES, checkpoint_steps, padded

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
    """A state before every `checkpoint_steps`-th step."""
    batch, length, channels = arguments.u.shape
    return (
        batch,
        -(-length // checkpoint_steps(batch, length, channels)),
        channels,
        padded(plain_size(arguments.A.shape[1])),
    )


def forward(
    arguments: ScanArguments, *, need_backward: bool, y: Tensor | None = None, add: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, the final state, and for the backward pass the state entering every `checkpoint_steps`-th step."""
    launcher = launcher_for(arguments.u.device)
    return launcher.run(_forward, launcher, arguments, need_backward, y, add)


def _forward(
    stream: Any, launcher: Launcher, a: ScanArguments, need_backward: bool, y: Tensor | None, add: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    u, delta, B, C, z = a.u.data_ptr(), a.delta.data_ptr(), a.B.data_ptr(), a.C.data_ptr(), address(a.z)
    rows, strides = u | delta | z, None
    if y is not None:
        rows, strides = rows | y.data_ptr(), y.stride()
    kind = a.kind or kind_of(a)
    key = (launcher, need_backward, strides, add, rows % 16 == 0, (B | C) % 16 == 0)
    call = kind.prepared.get(key)
    if call is None:
        options = {"need_backward": need_backward, "strides": strides, "add": add}
        call = kind.prepared[key] = prepare_forward(launcher, a, rows, B | C, **options)

    if y is None:
        y = launcher.empty(call.y)
    final_state = launcher.empty(call.final_state)
    kept = None if call.kept is None else launcher.empty(call.kept)
    work = None if call.work is None else launcher.empty(call.work)
    start = address(work)
    call.program.run(
        stream,
        *(u, delta, B, C, z, a.A.data_ptr(), address(a.D), address(a.delta_bias)),
        *(address(a.initial_state), address(a.seq_idx), y.data_ptr(), final_state.data_ptr()),
        *(start, start + call.sums, address(kept)),
    )
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
    launcher = launcher_for(arguments.u.device)
    return launcher.run(_backward, launcher, arguments, kept, grad_y, grad_final_state, targets)


def _backward(
    stream: Any,
    launcher: Launcher,
    a: ScanArguments,
    kept: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    targets: ScanTargets | None,
) -> ScanGradients:
    u, delta, B, C, z = a.u.data_ptr(), a.delta.data_ptr(), a.B.data_ptr(), a.C.data_ptr(), address(a.z)
    dy = grad_y.data_ptr()
    rows, places = u | delta | z | dy, None
    if targets is not None:
        rows |= targets.z.data_ptr() | targets.u.data_ptr() | targets.delta.data_ptr()
        whole = (targets.B.data_ptr() | targets.C.data_ptr()) % (4 * a.B.element_size()) == 0
        places = (targets.add, targets.z.stride(), targets.B.stride(), targets.C.stride(), whole)
    kind = a.kind or kind_of(a)
    key = (launcher, grad_y.stride(), places, rows % 16 == 0, (B | C) % 16 == 0)
    call = kind.prepared.get(key)
    if call is None:
        call = kind.prepared[key] = prepare_backward(launcher, a, rows, B | C, grad_y.stride(), places)

    gradients = _memory(launcher, call.gradients, targets)
    work = launcher.empty(call.work)
    start = work.data_ptr()
    state, sums, *others = call.offsets
    call.program.run(
        stream,
        *(u, delta, B, C, z, dy, a.A.data_ptr(), address(a.D), address(a.delta_bias)),
        *(address(a.initial_state), address(grad_final_state), address(a.seq_idx)),
        *(gradients.u.data_ptr(), gradients.delta.data_ptr(), address(gradients.z)),
        *(gradients.B.data_ptr(), gradients.C.data_ptr(), gradients.A.data_ptr(), address(gradients.D)),
        *(address(gradients.delta_bias), address(gradients.initial_state)),
        *(start + state, start + sums, kept.data_ptr(), *[start + offset for offset in others]),
    )
    del work
    return gradients


def _memory(launcher: Launcher, layouts: tuple[Layout | None, ...], targets: ScanTargets | None) -> ScanGradients:
    """Of all gradients, not yet written: new, or the caller's."""
    empty = launcher.empty
    made = [None if layout is None else empty(layout) for layout in layouts]
    if targets is None:
        return ScanGradients(*made)  # type: ignore[arg-type]
    parts = (targets.u, targets.delta, made[2], targets.B, targets.C, made[5], targets.z)
    return ScanGradients(*parts, *made[7:])  # type: ignore[arg-type]

"""Both directions over the same inputs: one launch where the back end is ours for GPUs, else a call each."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import address
from genossm_kernels.causal_conv1d import cuda_plan
from genossm_kernels.causal_conv1d.contract import CompiledBackend, ConvArguments, ConvGradients
from genossm_kernels.causal_conv1d.placing import backward_into, forward_into
from genossm_kernels.causal_conv1d.projected import Projected, backward_projected, takes

_SOURCE = Path(__file__).parent / "cuda_both.cu"
_MANY = Path(__file__).parent / "cuda_both_wide.cu"
_WIDEST = 4  # of cuda_both.cu: what registers hold of the windows of both
_THREADS = 128
_FORWARD_PIECE, _BACKWARD_PIECE = 4, 2
_SHORTEST_CHUNK, _LONGEST_CHUNK = 16, 256
_THREADS_WANTED = 4096  # a multiprocessor

# fmt: off
_POINTERS = (
    "x", "grad_first", "grad_second", "first", "first_bias", "second", "second_bias", "y_first", "y_second", "grad_x",
    "first_partial", "second_partial",
)
_STRIDES = (
    "x_batch", "x_row", "y_first_batch", "y_first_row", "y_second_batch", "y_second_row", "grad_first_batch",
    "grad_first_row", "grad_second_batch", "grad_second_row", "grad_x_batch", "grad_x_row", "length",
)
_COUNTS = ("batch", "channels", "pieces", "chunk", "chunks")
# fmt: on


class BothParameters(ctypes.Structure):
    """`BothParams` of cuda_both.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )


def forward_both(
    backend: CompiledBackend, one: ConvArguments, other: ConvArguments, outputs: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The final state of either, which read the same x; what they put out goes into `outputs`."""
    if not _together(backend, one, other, outputs):
        return forward_into(backend, one, outputs[0]), forward_into(backend, other, outputs[1])
    first, second = outputs[::-1] if one.reverse[0] else outputs
    p = _parameters(one, other)
    p.y_first, p.y_first_batch, p.y_first_row = first.data_ptr(), *first.stride()[:2]
    p.y_second, p.y_second_batch, p.y_second_row = second.data_ptr(), *second.stride()[:2]
    _shared_out(backend, p, one, outputs, backward=False)()
    return final_state(one), final_state(other)


def backward_both(
    backend: CompiledBackend,
    one: ConvArguments,
    other: ConvArguments,
    grad_outputs: tuple[Tensor, Tensor],
    grad_final_states: tuple[Tensor | None, Tensor | None],
    grad_x: Tensor,
) -> tuple[ConvGradients, ConvGradients]:
    """All gradients of either; that of the x they share, summed, replaces what is in `grad_x`."""
    if grad_final_states != (None, None) or not _together(backend, one, other, (*grad_outputs, grad_x)):
        calls = zip((one, other), grad_outputs, grad_final_states, (False, True))
        first, second = (backward_into(backend, a, grad_y, state, grad_x, add=add) for a, grad_y, state, add in calls)
        return first, second
    few = one.weight.shape[1] <= _WIDEST and takes(backend, [one, other], None)
    if few and grad_x.data_ptr() % 4 == 0 and not any(n % 2 for n in grad_x.stride()[:2]):
        given = [Projected(a, None, grad_y, None) for a, grad_y in zip((one, other), grad_outputs, strict=True)]
        (first, _), (second, _) = backward_projected(backend, given, grad_x)
        return first, second
    p, swapped = _parameters(one, other), one.reverse[0]
    gradients = grad_outputs[::-1] if swapped else grad_outputs
    p.grad_first, p.grad_first_batch, p.grad_first_row = gradients[0].data_ptr(), *gradients[0].stride()[:2]
    p.grad_second, p.grad_second_batch, p.grad_second_row = gradients[1].data_ptr(), *gradients[1].stride()[:2]
    p.grad_x, p.grad_x_batch, p.grad_x_row = grad_x.data_ptr(), *grad_x.stride()[:2]
    launch = _shared_out(backend, p, one, (*gradients, grad_x), backward=True)
    channels, width = one.weight.shape
    shape = (2, p.batch * p.chunks, channels, width + 1)
    partial = torch.empty(shape, dtype=torch.float32, device=one.x.device)
    p.first_partial, p.second_partial = (half.data_ptr() for half in partial)
    launch()
    sums = partial.sum(dim=1)
    of_one, of_other = (sums[1], sums[0]) if swapped else (sums[0], sums[1])
    return _gradients(one, grad_x, of_one), _gradients(other, grad_x, of_other)


def _together(backend: CompiledBackend, one: ConvArguments, other: ConvArguments, rows: tuple[Tensor, ...]) -> bool:
    """Whether one launch does both: opposite ways from their ends, few taps or rows for many, and our kernels."""
    ways = {(one.reverse, one.silu), (other.reverse, other.silu)} == {((False,), True), ((True,), True)}
    plain = all(a.initial_state is None and a.seq_idx is None for a in (one, other))
    width = one.weight.shape[1]
    alike = one.weight.shape == other.weight.shape and one.x.shape[1] >= width
    if not (hasattr(backend, "launcher_for") and ways and plain and alike):
        return False
    return 1 < width <= _WIDEST or cuda_plan.fits(one, cuda_plan.Rows.of(one.x, *rows))


def _parameters(one: ConvArguments, other: ConvArguments) -> BothParameters:
    first, second = (other, one) if one.reverse[0] else (one, other)
    p, x = BothParameters(), one.x
    p.x, p.x_batch, p.x_row = x.data_ptr(), *x.stride()[:2]
    p.first, p.first_bias = first.weight.data_ptr(), address(first.bias)
    p.second, p.second_bias = second.weight.data_ptr(), address(second.bias)
    p.batch, p.length, p.channels = x.shape
    return p


def _shared_out(
    backend: Any, p: BothParameters, one: ConvArguments, rows: tuple[Tensor, ...], *, backward: bool
) -> Callable[[], None]:
    """Shares the work out in `p`; what launches it.   rows: that are read or written besides x."""
    launcher = backend.launcher_for(one.x.device)
    if one.weight.shape[1] > _WIDEST:
        name = "convolve_wide_both_gradients" if backward else "convolve_wide_both"
        shape, tensors = _shape(one, backward=backward), 3 if backward else 1
        shared = cuda_plan.plan_runs(launcher, one, (_MANY, name), shape, tensors)
        p.pieces, p.chunk, p.chunks = shared.tiles, shared.run, shared.runs
        module, grid = shared.module, (shared.blocks, shared.threads, shared.shared_bytes)
    else:
        name, piece = ("convolve_both_gradients", _BACKWARD_PIECE) if backward else ("convolve_both", _FORWARD_PIECE)
        p.pieces = -(-p.channels // piece)
        wanted = max(1, launcher.multiprocessors * _THREADS_WANTED // (p.batch * p.pieces))
        # A chunk reads rows of its neighbours besides its own.
        p.chunk = min(_LONGEST_CHUNK, max(_SHORTEST_CHUNK, -(-p.length // wanted)))
        p.chunks = -(-p.length // p.chunk)
        module = launcher.module(_SOURCE, _macros(one, piece, rows))
        grid = (-(-p.batch * p.chunks * p.pieces // _THREADS), _THREADS, 0)

    def launch() -> None:
        with launcher.active() as stream:
            module.launch(stream, name, *grid, p)

    return launch


def _shape(one: ConvArguments, *, backward: bool) -> cuda_plan.Shape:
    if one.weight.shape[1] <= 16:
        return cuda_plan.Shape(1, 12, 2) if backward else cuda_plan.Shape(2, 12, 3)
    return cuda_plan.Shape(1, 8, 2) if backward else cuda_plan.Shape(1, 12, 3)


def _macros(one: ConvArguments, piece: int, rows: tuple[Tensor, ...]) -> tuple[tuple[str, int], ...]:
    """rows: whose channels may be read or written a piece at a time, besides those of x."""
    whole = one.x.shape[2] % piece == 0 and cuda_plan.Rows.of(one.x, *rows).whole(piece, one.x.element_size())
    dtype, width = cuda_plan.DTYPES[one.x.dtype], one.weight.shape[1]
    return (("ALIGNED", int(whole)), ("DTYPE", dtype), ("PIECE", piece), ("WIDTH", width))


def final_state(a: ConvArguments) -> Tensor:
    """The last inputs in the order of processing, oldest first."""
    tail = a.weight.shape[1] - 1
    return (
        a.x[:, :tail].flip(1)
        if a.reverse[0]
        else a.x[:, a.x.shape[1] - tail :].clone(memory_format=torch.contiguous_format)
    )


def _gradients(a: ConvArguments, grad_x: Tensor, sums: Tensor) -> ConvGradients:
    width = a.weight.shape[1]
    bias = None if a.bias is None else sums[:, width].contiguous()
    return ConvGradients(x=grad_x, weight=sums[:, :width].contiguous(), bias=bias, initial_state=None)

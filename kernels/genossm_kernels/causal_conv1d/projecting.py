"""Convolutions and a projection of what they put out in one launch on a GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import address
from genossm_kernels.causal_conv1d.both import final_state
from genossm_kernels.causal_conv1d.contract import ConvArguments
from genossm_kernels.causal_conv1d.projected import fits

_SOURCE = Path(__file__).parent / "cuda_projecting.cu"
_DTYPES = {torch.bfloat16: 1, torch.float16: 2}
_TILE, _STEP = 64, 16
FEWEST = 1 << 15  # positions: below, what a call costs on the host counts
_GROUP, _WIDEST_OF_BOTH, _MOST_WIDENED = 8, 4, 16
_SHORTEST_RUN, _MOST_WARPS = 64, 8
_WIDENED_ROW = 24

# fmt: off
_POINTERS = (
    "x", "into_first", "into_second", "widen_first", "widen_second", "first", "first_bias", "second", "second_bias",
    "y_first", "y_second", "low_first", "low_second", "wide_first", "wide_second",
)
_STRIDES = ("x_batch", "x_row", "y_first_batch", "y_first_row", "y_second_batch", "y_second_row", "length")
# fmt: on


class ProjectingParameters(ctypes.Structure):
    """`ProjectingParams` of cuda_projecting.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        ("run", ctypes.c_int32),
        ("chunks", ctypes.c_int32),
    )


def projects(backend: Any, calls: list[ConvArguments], into: Tensor) -> bool:
    """Whether these are for `forward_projecting`: it can run them (`fits` says what), and nothing else is faster."""
    x, width = calls[0].x, calls[0].weight.shape[1]
    if x.shape[0] * x.shape[1] < FEWEST or not fits(backend, calls, into):
        return False
    if len(calls) == 2 and width > _WIDEST_OF_BOTH:  # both.py reads x once for many taps
        return False
    warps = into.shape[1] // _TILE
    fitting = _shared_bytes(warps, into.shape[0], 3, 0) <= backend.launcher_for(into.device).shared_bytes_per_block
    return fitting and warps <= _MOST_WARPS


def widens(widen: Tensor) -> bool:
    """Whether `forward_projecting` can multiply by it, too."""
    rank = widen.shape[1]
    return rank % 4 == 0 and rank <= _MOST_WIDENED and widen.data_ptr() % 4 == 0 and widen.is_contiguous()


def forward_projecting(
    backend: Any,
    calls: list[ConvArguments],
    into: list[Tensor],
    outputs: list[Tensor],
    widen: list[Tensor] | None = None,
) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
    """The final state and low of each; what the convolutions put out goes into `outputs`, whose rows lie on 16 bytes.

    widen: (channels, rank) each; the last results are then the first rank columns of low times its transpose.
    """
    x, (columns, channels), width = calls[0].x, into[0].shape, calls[0].weight.shape[1]
    launcher, warps = backend.launcher_for(x.device), channels // _TILE
    rank = 0 if widen is None else widen[0].shape[1]
    # Few taps of one way hide their reads behind a third step in shared memory, whatever else behind a second block.
    stages, blocks, rounds = (3, 1, 1) if len(calls) == 1 and width <= 4 else (2, 2, 2)
    shared = _shared_bytes(warps, columns, stages, rank)
    ways = [call.reverse[0] for call in calls]
    macros = (
        ("BLOCKS", blocks),
        ("DTYPE", _DTYPES[x.dtype]),
        ("FIRST", int(False in ways)),
        ("GROUP", _GROUP),
        ("LOW", columns),
        ("RANK", rank),
        ("SECOND", int(True in ways)),
        ("STAGES", stages),
        ("WARPS", warps),
        ("WIDTH", width),
    )
    module = launcher.module(_SOURCE, macros)
    p = _parameters(x, rounds * module.resident_blocks("convolve_projecting", 32 * warps, shared) // len(ways))
    lows = [x.new_empty((*x.shape[:2], columns)) for _ in calls]
    wides = [x.new_empty(x.shape) for _ in widen or ()]
    into = [weight.contiguous() for weight in into]
    for number, (call, weight, y) in enumerate(zip(calls, into, outputs, strict=True)):
        name = "second" if call.reverse[0] else "first"
        setattr(p, name, call.weight.data_ptr())
        setattr(p, f"{name}_bias", address(call.bias))
        setattr(p, f"into_{name}", weight.data_ptr())
        setattr(p, f"low_{name}", lows[number].data_ptr())
        if widen is not None:
            setattr(p, f"widen_{name}", widen[number].data_ptr())
            setattr(p, f"wide_{name}", wides[number].data_ptr())
        for field, value in zip(("", "_batch", "_row"), (y.data_ptr(), *y.stride()[:2]), strict=True):
            setattr(p, f"y_{name}{field}", value)
    with launcher.active() as stream:
        module.launch(stream, "convolve_projecting", len(ways) * len(x) * p.chunks, 32 * warps, shared, p)
    return tuple(final_state(call) for call in calls), lows, wides


def _parameters(x: Tensor, resident: int) -> ProjectingParameters:
    """What does not depend on the ways.   resident: blocks that are to share the work."""
    p = ProjectingParameters()
    p.length = x.shape[1]
    p.run = max(_SHORTEST_RUN, -(-p.length // max(1, resident // len(x))))
    p.run += -p.run % _STEP
    p.chunks = -(-p.length // p.run)
    p.x, p.x_batch, p.x_row = x.data_ptr(), *x.stride()[:2]
    return p


def _shared_bytes(warps: int, columns: int, stages: int, rank: int) -> int:
    """As cuda_projecting.cu lays it out."""
    padded = -(-columns // 16) * 16
    weights, sums = _TILE * padded * 2, 4 * _STEP * (padded + 8)
    widened = 2 * _STEP * _WIDENED_ROW if rank else 0
    return warps * (weights + sums + 2 * _STEP * (_TILE + 8) * stages) + widened

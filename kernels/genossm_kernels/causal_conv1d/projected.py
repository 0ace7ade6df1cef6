"""The backward pass of convolutions and of a projection of what they put out, in one launch on a GPU.

A layer multiplies u, which a convolution put out, by a matrix W; what then reaches u is a sum, and what reaches W a
product with u. Where this kernel can run, neither that sum nor u itself is written to memory (CUDA.md).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genossm_kernels._cuda.launch import address
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvGradients

_SOURCE = Path(__file__).parent / "cuda_projected.cu"
_DTYPES = {torch.bfloat16: 1, torch.float16: 2}
FEWEST = 1 << 16  # positions: below, what a call costs on the host counts
_WIDEST, _WIDEST_OF_BOTH, _MOST_COLUMNS = 16, 4, 64
_WARPS, _TILE, _STEP, _PIECE = 4, 64, 16, 8
_GROUP = 8
_BLOCKS, _BLOCKS_ALONE = {1: 3, 2: 2}, {1: 4, 2: 3}  # a multiprocessor, by ways; alone: without a projection
_ROUNDS = {1: 2, 2: 1}  # of blocks over the device
_SHORTEST_RUN = 64
_WAYS = ([(False,)], [(True,)], [(False,), (True,)], [(True,), (False,)])

# fmt: off
_POINTERS = (
    "x", "grad_first", "grad_second", "low_first", "low_second", "into_first", "into_second",
    "first", "first_bias", "second", "second_bias", "grad_x",
    "first_partial", "second_partial", "first_products", "second_products",
)
_STRIDES = (
    "x_batch", "x_row", "grad_first_batch", "grad_first_row", "grad_second_batch", "grad_second_row",
    "low_first_batch", "low_first_row", "low_second_batch", "low_second_row", "grad_x_batch", "grad_x_row", "length",
)
_COUNTS = ("batch", "channels", "tiles", "run", "chunks")
# fmt: on


class ProjectedParameters(ctypes.Structure):
    """`ProjectedParams` of cuda_projected.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )


class Projected(NamedTuple):
    """One convolution, low = u W^T of what it put out, and what is known of gradients.

    grad_u: but for what comes through W.
    """

    convolution: ConvArguments
    weight: Float[Tensor, "columns channels"] | None
    grad_u: Float[Tensor, "batch length channels"]
    grad_low: Float[Tensor, "batch length columns"] | None


def takes(backend: Any, calls: list[ConvArguments], into: Tensor | None) -> bool:
    """Whether these are for `backward_projected`: it can run them, and they are long enough."""
    x = calls[0].x
    return x.shape[0] * x.shape[1] >= FEWEST and fits(backend, calls, into)


def fits(backend: Any, calls: list[ConvArguments], into: Tensor | None) -> bool:
    """One convolution, or one either way, with SiLU over rows on 16 bytes.

    into: the W of one of them, which are alike, if there is one.
    """
    x = calls[0].x
    if not hasattr(backend, "launcher_for") or x.dtype not in _DTYPES:
        return False
    ways = [call.reverse for call in calls]
    channels, width = calls[0].weight.shape
    plain = all(call.silu and call.initial_state is None and call.seq_idx is None for call in calls)
    same = all(call.weight.shape == (channels, width) for call in calls)
    sizes = 1 < width <= _WIDEST and channels % _TILE == 0
    rows = _whole(x) and x.shape[1] >= width
    if into is not None:
        sizes = sizes and into.shape[0] % 4 == 0 and into.shape[0] <= _MOST_COLUMNS
        rows = rows and into.dtype == x.dtype
    return ways in _WAYS and plain and same and sizes and rows


def _whole(rows: Tensor, elements: int = _PIECE) -> bool:
    """Whether every row begins on a multiple of so many elements."""
    size = elements * rows.element_size()
    strides = rows.stride()[:2]
    return rows.stride(-1) == 1 and rows.data_ptr() % size == 0 and all(stride % elements == 0 for stride in strides)


def backward_projected(
    backend: Any, given: list[Projected], grad_x: Float[Tensor, "batch length channels"], *, add: bool = False
) -> list[tuple[ConvGradients, Tensor | None]]:
    """All gradients of every convolution and that of its W; that of the x they share replaces what is in `grad_x`.

    add: it is added to that instead.
    """
    launcher = backend.launcher_for(given[0].convolution.x.device)
    columns = 0 if given[0].weight is None else given[0].weight.shape[0]
    threads, shared = 32 * _WARPS, _shared_bytes(len(given), columns)
    wide = given[0].convolution.weight.shape[1] > _WIDEST_OF_BOTH
    if len(given) == 2 and (wide or shared > launcher.shared_bytes_per_block):
        one, other = given
        first = backward_projected(backend, [one], grad_x, add=add)
        return [*first, *backward_projected(backend, [other], grad_x, add=True)]
    module = launcher.module(_SOURCE, _macros(given, columns, add=add))
    resident = module.resident_blocks("pass_back_projected", threads, shared)
    p = _parameters(given, _ROUNDS[len(given)] * resident)
    p.grad_x, p.grad_x_batch, p.grad_x_row = grad_x.data_ptr(), *grad_x.stride()[:2]
    ways = [_describe(p, one) for one in given]
    with launcher.active() as stream:
        module.launch(stream, "pass_back_projected", p.batch * p.chunks * p.tiles, threads, shared, p)
    return [way.gradients(one, grad_x) for way, one in zip(ways, given, strict=True)]


def _macros(given: list[Projected], columns: int, *, add: bool) -> tuple[tuple[str, int], ...]:
    ways = [one.convolution.reverse[0] for one in given]
    x, width = given[0].convolution.x, given[0].convolution.weight.shape[1]
    return (
        ("ADD", int(add)),
        ("BLOCKS", _blocks(len(given), columns, width)),
        ("DTYPE", _DTYPES[x.dtype]),
        ("FIRST", int(False in ways)),
        ("GROUP", _GROUP),
        ("LOW", columns),
        ("SECOND", int(True in ways)),
        ("WIDTH", width),
    )


def _blocks(ways: int, columns: int, width: int) -> int:
    """Blocks a multiprocessor: what registers and shared memory allow."""
    if width > _WIDEST_OF_BOTH:
        return 2
    return _BLOCKS[ways] if columns else _BLOCKS_ALONE[ways]


def _parameters(given: list[Projected], resident: int) -> ProjectedParameters:
    """All but what each way has of its own.   resident: blocks that are to share the work."""
    x, p = given[0].convolution.x, ProjectedParameters()
    p.batch, p.length, p.channels = x.shape
    p.tiles = p.channels // _TILE
    wanted = max(1, resident // (p.batch * p.tiles)) * _WARPS
    p.run = max(_SHORTEST_RUN, -(-p.length // wanted))
    p.run += -p.run % _STEP
    p.chunks = -(-p.length // (p.run * _WARPS))
    p.x, p.x_batch, p.x_row = x.data_ptr(), *x.stride()[:2]
    return p


class _Way(NamedTuple):
    """Sums of every run and of every chunk, and what is to live until the launch is queued."""

    partial: Tensor
    products: Tensor | None
    kept: tuple[Tensor, ...]

    def gradients(self, one: Projected, grad_x: Tensor) -> tuple[ConvGradients, Tensor | None]:
        width, bias, sums = one.convolution.weight.shape[1], one.convolution.bias, self.partial.sum(dim=0)
        found = ConvGradients(
            x=grad_x,
            weight=sums[:, :width].contiguous(),
            bias=None if bias is None else sums[:, width].contiguous(),
            initial_state=None,
        )
        return found, None if self.products is None else self.products.sum(dim=0).to(grad_x.dtype)


def _describe(p: ProjectedParameters, one: Projected) -> _Way:
    """Fills in one way's part of the parameters."""
    name = "second" if one.convolution.reverse[0] else "first"
    taps, chunks = one.convolution.weight, p.batch * p.chunks
    setattr(p, name, taps.data_ptr())
    setattr(p, f"{name}_bias", address(one.convolution.bias))
    kept = [_set(p, f"grad_{name}", one.grad_u, _PIECE)]
    partial = taps.new_empty((chunks * _WARPS, *(taps.shape[0], taps.shape[1] + 1)))
    setattr(p, f"{name}_partial", partial.data_ptr())
    products = None
    if one.weight is not None and one.grad_low is not None:
        kept += [_set(p, f"low_{name}", one.grad_low, _PIECE if one.weight.shape[0] % _PIECE == 0 else 4)]
        kept += [one.weight.contiguous()]
        setattr(p, f"into_{name}", kept[-1].data_ptr())
        products = taps.new_empty((chunks, *one.weight.shape))
        setattr(p, f"{name}_products", products.data_ptr())
    return _Way(partial, products, tuple(kept))


def _set(p: ProjectedParameters, name: str, rows: Tensor, elements: int) -> Tensor:
    """Tells where rows lie; they themselves, or a copy that can be read so many elements at a time."""
    rows = rows if _whole(rows, elements) else rows.contiguous()
    setattr(p, name, rows.data_ptr())
    for field, stride in zip(("batch", "row"), rows.stride(), strict=False):
        setattr(p, f"{name}_{field}", stride)
    return rows


def _shared_bytes(ways: int, columns: int) -> int:
    """As cuda_projected.cu lays it out."""
    padded = -(-columns // 16) * 16
    weights = ways * padded // 16 * 8 * 32 * 2 * 4
    stage = _STEP * (_TILE + (_TILE + 8) * ways) + (_STEP * (padded + 8) * ways if columns else 0)
    return weights + 2 * _WARPS * stage * 2

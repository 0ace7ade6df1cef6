"""The fused GPU back end: CUDA C++ compiled at run time (cuda_forward.cu, cuda_backward.cu; CUDA.md derives them)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, Module, launcher_for, unavailable_reason
from genossm_kernels.selective_scan.contract import ScanArguments, ScanGradients
from genossm_kernels.selective_scan.cuda_parameters import ScanParameters

_FORWARD = Path(__file__).parent / "cuda_forward.cu"
_BACKWARD = Path(__file__).parent / "cuda_backward.cu"
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_LARGEST_STATE = 64
_LARGEST_BLOCKS = 64  # bits of `reversed_blocks`

CHECKPOINT = 128  # steps between the states kept for the backward pass
LONGEST_SEGMENT = 2048
_FORWARD_TILE, _FORWARD_WARPS = 16, 4  # the adjoint pass has the same tile
_ADJOINT_WARPS = 4
_GRADIENT_TILE, _SWEEP_TILE, _GRADIENT_WARPS = 8, 32, 8
_WARPS_WANTED = 64  # a multiprocessor: four rounds of the 16 it holds


def unavailable(arguments: ScanArguments) -> str | None:
    """None if this device and these arguments are within what the kernels do."""
    if arguments.u.dtype not in _DTYPES:
        return f"it takes float32, bfloat16 and float16, not {arguments.u.dtype}"
    if arguments.A.shape[1] > _LARGEST_STATE:
        return f"it takes d_state up to {_LARGEST_STATE}, not {arguments.A.shape[1]}"
    if len(arguments.reverse) > _LARGEST_BLOCKS:
        return f"it takes up to {_LARGEST_BLOCKS} blocks of channels in `reverse`, not {len(arguments.reverse)}"
    return unavailable_reason(arguments.u.device)


@dataclass(frozen=True)
class _Layout:
    """How channels and states fall to warps; mirrors cuda_common.cuh."""

    state_lanes: int
    runs: int
    tiles_per_run: int

    @classmethod
    def of(cls, arguments: ScanArguments) -> _Layout:
        channels, d_state = arguments.A.shape
        state_lanes = 1
        while 4 * state_lanes < d_state:
            state_lanes *= 2
        runs = math.lcm(len(arguments.reverse), arguments.B.shape[2])
        return cls(state_lanes, runs, -(-(channels // runs) // (128 // state_lanes)))

    @property
    def padded_state(self) -> int:
        return 4 * self.state_lanes

    @property
    def warp_channels(self) -> int:
        return 128 // self.state_lanes

    @property
    def tiles(self) -> int:
        return self.runs * self.tiles_per_run

    def row_slots(self, times: int, item_size: int) -> int:
        """Floats of the slots that fetch `times` rows of channels: Rows<TIMES>::FLOATS."""
        return -(-times * self.warp_channels * item_size // 512) * 128

    def map_slots(self, times: int, item_size: int, aligned_maps: int) -> int:
        """The same of B or C: Maps<TIMES>::FLOATS."""
        if not aligned_maps or self.padded_state * item_size < 16:
            return 0
        return -(-times * self.padded_state * item_size // 512) * 128

    def forward_bytes(self, macros: dict[str, int], item_size: int, *, rows: int, maps: int, constants: int) -> int:
        """Shared memory of a warp of `segment_states`, `outputs` and `segment_adjoints`, which fetch `rows` tensors."""
        times = _FORWARD_TILE
        floats = times * (2 * self.warp_channels + maps * self.padded_state) + constants * self.warp_channels
        floats += rows * self.row_slots(times, item_size)
        floats += maps * self.map_slots(times, item_size, macros["ALIGNED_MAPS"])
        return 4 * floats

    def gradient_bytes(self, macros: dict[str, int], item_size: int) -> int:
        """Shared memory of a warp of `gradients`: GRADIENT_FLOATS of cuda_backward.cu."""
        rows = max(6 * _GRADIENT_TILE, 2 * _SWEEP_TILE) * self.warp_channels
        maps = _SWEEP_TILE * self.padded_state + 2 * _GRADIENT_TILE * 2 * self.padded_state
        aligned = macros["ALIGNED_MAPS"]
        stage = 4 * self.row_slots(_GRADIENT_TILE, item_size) + 2 * self.map_slots(_GRADIENT_TILE, item_size, aligned)
        stage += 512  # the state before the tile
        sweep = 2 * self.row_slots(_SWEEP_TILE, item_size) + self.map_slots(_SWEEP_TILE, item_size, aligned)
        return 4 * (rows + maps + 2 * self.warp_channels + max(2 * stage, sweep))


def forward(arguments: ScanArguments, *, need_backward: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """y, the final state, and for the backward pass the state entering every CHECKPOINT-th step."""
    launcher = launcher_for(arguments.u.device)
    layout = _Layout.of(arguments)
    u = arguments.u
    batch, length, channels = u.shape
    macros = _macros(arguments, layout, (u, arguments.delta, arguments.z))
    module = launcher.module(_FORWARD, macros)
    segment_length, segments = _segments(launcher, layout, batch, length)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    final_state = torch.empty(batch, channels, arguments.A.shape[1], dtype=torch.float32, device=u.device)
    saved: tuple[Tensor, ...] = ()
    parameters = _parameters(arguments, layout, segment_length, segments)
    if need_backward:
        count = -(-length // CHECKPOINT)
        saved = (torch.empty(batch, count, channels, layout.padded_state, dtype=torch.float32, device=u.device),)
        parameters.checkpoints = saved[0].data_ptr()
    parameters.y, parameters.y_batch, parameters.y_row = y.data_ptr(), y.stride(0), y.stride(1)
    parameters.final_state = final_state.data_ptr()

    threads = 32 * _FORWARD_WARPS
    if segments > 1:
        segment_state = torch.empty(
            batch, segments, channels, layout.padded_state, dtype=torch.float32, device=u.device
        )
        segment_sum = torch.empty(batch, segments, channels, dtype=torch.float32, device=u.device)
        parameters.segment_state, parameters.segment_sum = segment_state.data_ptr(), segment_sum.data_ptr()
        blocks = -(-batch * (segments - 1) * layout.tiles // _FORWARD_WARPS)
        shared = _FORWARD_WARPS * layout.forward_bytes(macros, u.element_size(), rows=2, maps=1, constants=1)
        module.launch("segment_states", blocks, threads, shared, parameters)
        module.launch("carry_states", _carry_blocks(batch, channels, layout), 256, 0, parameters)
    blocks = -(-batch * segments * layout.tiles // _FORWARD_WARPS)
    shared = _FORWARD_WARPS * layout.forward_bytes(macros, u.element_size(), rows=3, maps=2, constants=2)
    module.launch("outputs", blocks, threads, shared, parameters)
    return y, final_state, saved


def backward(
    arguments: ScanArguments, saved: tuple[Tensor, ...], grad_y: Tensor, grad_final_state: Tensor | None
) -> ScanGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    launcher = launcher_for(arguments.u.device)
    layout = _Layout.of(arguments)
    u = arguments.u
    batch, length, channels = u.shape
    macros = _macros(arguments, layout, (u, arguments.delta, arguments.z, grad_y))
    warp_bytes = layout.gradient_bytes(macros, u.element_size())
    warps = _gradient_warps(launcher, layout, warp_bytes)
    module = launcher.module(_BACKWARD, macros | {"BACKWARD_WARPS": warps})
    segment_length, segments = _segments(launcher, layout, batch, length)
    parameters = _parameters(arguments, layout, segment_length, segments)
    parts_per_run = -(-layout.tiles_per_run // warps)
    parameters.parts_per_run = parts_per_run
    parameters.checkpoints = saved[0].data_ptr()
    parameters.grad_y, parameters.grad_y_batch, parameters.grad_y_row = grad_y.data_ptr(), *grad_y.stride()[:2]
    if grad_final_state is not None:
        parameters.grad_final_state = grad_final_state.data_ptr()
    gradients = _empty_gradients(arguments)
    for name in ("u", "delta", "A", "B", "C", "D", "z", "initial_state"):
        tensor = getattr(gradients, name)
        setattr(parameters, f"grad_{name}", None if tensor is None else tensor.data_ptr())
    parameters.grad_bias = None if gradients.delta_bias is None else gradients.delta_bias.data_ptr()

    work = _backward_work(parameters, module, layout, u, segments, warps, warp_bytes)
    if segments > 1:
        blocks = -(-batch * (segments - 1) * layout.tiles // _ADJOINT_WARPS)
        shared = _ADJOINT_WARPS * layout.forward_bytes(macros, u.element_size(), rows=3, maps=1, constants=1)
        module.launch("segment_adjoints", blocks, 32 * _ADJOINT_WARPS, shared, parameters)
        module.launch("carry_adjoints", _carry_blocks(batch, channels, layout), 256, 0, parameters)
    module.launch("gradients", work.blocks, 32 * warps, warps * warp_bytes, parameters)
    blocks = -(-channels * (layout.padded_state + 2) // 128)
    module.launch("sum_parameters", blocks, 128, 0, parameters)
    blocks = -(-batch * length * 2 * layout.padded_state // 256)
    module.launch("sum_maps", blocks, 256, 0, parameters)
    return gradients


@dataclass(frozen=True)
class _Work:
    """Work space of one backward pass; held until its kernels are queued on the stream that frees it."""

    blocks: int
    tensors: tuple[Tensor, ...]


def _backward_work(
    parameters: ScanParameters,
    module: Module,
    layout: _Layout,
    u: Tensor,
    segments: int,
    warps: int,
    warp_bytes: int,
) -> _Work:
    batch, length, channels = u.shape
    parts = layout.runs * parameters.parts_per_run
    resident = module.resident_blocks("gradients", 32 * warps, warps * warp_bytes)
    blocks = min(resident, batch * segments * parts)
    padded = layout.padded_state

    def floats(*size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32, device=u.device)

    tensors = {
        "scratch": floats(blocks, warps, CHECKPOINT // _GRADIENT_TILE, 4, 32, 4),
        "map_partial": floats(parts, batch, length, 2, padded),
        "A_partial": floats(batch * segments, channels, padded),
        "sum_partial": floats(batch * segments, 2, channels),
    }
    if segments > 1:
        tensors["segment_state"] = floats(batch, segments, channels, padded)
        tensors["segment_sum"] = floats(batch, segments, channels)
    for name, tensor in tensors.items():
        setattr(parameters, name, tensor.data_ptr())
    return _Work(blocks, tuple(tensors.values()))


def _parameters(arguments: ScanArguments, layout: _Layout, segment_length: int, segments: int) -> ScanParameters:
    a, u = arguments, arguments.u
    p = ScanParameters()
    for name in ("u", "delta", "B", "C", "z", "A", "D", "initial_state", "seq_idx"):
        tensor: Tensor | None = getattr(a, name)
        setattr(p, name, None if tensor is None else tensor.data_ptr())
    p.bias = None if a.delta_bias is None else a.delta_bias.data_ptr()
    p.u_batch, p.u_row = u.stride()[:2]
    p.delta_batch, p.delta_row = a.delta.stride()[:2]
    if a.z is not None:
        p.z_batch, p.z_row = a.z.stride()[:2]
    p.B_batch, p.B_row, p.B_group = a.B.stride()[:3]
    p.C_batch, p.C_row, p.C_group = a.C.stride()[:3]
    p.batch, p.length, p.channels = u.shape
    p.d_state, p.groups, p.blocks = a.A.shape[1], a.B.shape[2], len(a.reverse)
    p.reversed_blocks = sum(1 << index for index, reverse in enumerate(a.reverse) if reverse)
    p.runs, p.tiles_per_run = layout.runs, layout.tiles_per_run
    p.segment_length, p.segments, p.checkpoint = segment_length, segments, CHECKPOINT
    return p


def _macros(arguments: ScanArguments, layout: _Layout, rows: tuple[Tensor | None, ...]) -> dict[str, int]:
    """What the source is compiled for. `rows` are the tensors whose channels may be read 16 bytes at a time."""
    vector = 16 // arguments.u.element_size()
    run_length = arguments.u.shape[2] // layout.runs
    d_state = arguments.A.shape[1]
    return {
        "DTYPE": _DTYPES[arguments.u.dtype],
        "SOFTPLUS": int(arguments.delta_softplus),
        "GATE": int(arguments.z is not None),
        "STATE_LANES": layout.state_lanes,
        "ALIGNED": int(run_length % vector == 0 and all(_aligned(tensor, vector) for tensor in rows)),
        "ALIGNED_MAPS": int(d_state % vector == 0 and _aligned(arguments.B, vector) and _aligned(arguments.C, vector)),
    }


def _aligned(tensor: Tensor | None, vector: int) -> bool:
    if tensor is None:
        return True
    return tensor.data_ptr() % 16 == 0 and all(stride % vector == 0 for stride in tensor.stride()[:-1])


def _segments(launcher: Launcher, layout: _Layout, batch: int, length: int) -> tuple[int, int]:
    """Length of a segment, a multiple of CHECKPOINT, and their number: enough warps to fill the device."""
    wanted = max(1, launcher.multiprocessors * _WARPS_WANTED // (batch * layout.tiles))
    segment_length = -(-length // wanted)
    segment_length = min(LONGEST_SEGMENT, -(-segment_length // CHECKPOINT) * CHECKPOINT)
    return segment_length, -(-length // segment_length)


def _gradient_warps(launcher: Launcher, layout: _Layout, warp_bytes: int) -> int:
    """Warps of a block of `gradients`: as few idle ones as the widest block allows."""
    widest = _GRADIENT_WARPS
    while widest > 1 and widest * warp_bytes > launcher.shared_bytes_per_block:
        widest //= 2
    parts = -(-layout.tiles_per_run // widest)
    return -(-layout.tiles_per_run // parts)


def _carry_blocks(batch: int, channels: int, layout: _Layout) -> int:
    return -(-batch * channels * layout.padded_state // 256)


def _empty_gradients(arguments: ScanArguments) -> ScanGradients:
    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    return ScanGradients(**{name: like(getattr(arguments, name)) for name in names})  # type: ignore[arg-type]

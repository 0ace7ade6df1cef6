"""`ScanParams` of cuda_common.cuh as Python fills it: the same fields in the same order."""

from __future__ import annotations

import ctypes

# fmt: off
_POINTERS = (
    "u", "delta", "B", "C", "z", "grad_y", "A", "D", "bias", "initial_state", "grad_final_state", "seq_idx", "y",
    "grad_u", "grad_delta", "grad_z", "grad_B", "grad_C", "final_state", "grad_A", "grad_D", "grad_bias",
    "grad_initial_state", "segment_state", "segment_sum", "checkpoints", "scratch", "map_partial", "A_partial",
    "sum_partial",
)
_STRIDES = (
    "u_batch", "u_row", "delta_batch", "delta_row", "z_batch", "z_row", "y_batch", "y_row", "B_batch", "B_row",
    "B_group", "C_batch", "C_row", "C_group", "grad_y_batch", "grad_y_row", "grad_z_batch", "grad_z_row",
    "grad_B_batch", "grad_B_row", "grad_C_batch", "grad_C_row", "length",
)
_COUNTS = (
    "batch", "channels", "d_state", "groups", "blocks", "runs", "tiles_per_run", "parts_per_run", "segment_length",
    "segments", "checkpoint", "add_grad_z", "whole_map_rows",
)


# fmt: on


class ScanParameters(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        ("reversed_blocks", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )

"""Checks and layout rules that the operators share; the messages name the argument at fault."""

from __future__ import annotations

import torch
from torch import Tensor

from genossm_kernels.errors import KernelError, ShapeError

ACTIVATION_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Arithmetic and states are float32, and float64 where the inputs are."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def plain_size(size: int) -> int:
    """A size as a plain number, also where a compiler would carry a symbol: its graph is then for this size alone."""
    return len(range(size))


def check_shape(operator: str, name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if tensor.shape != shape:
        raise ShapeError(f"{operator}: {name} is {tuple(tensor.shape)}; wanted {meaning} = {shape}.")


def check_activations(operator: str, first: str, tensors: dict[str, Tensor | None]) -> None:
    """All activations share the dtype and device of the one named `first`."""
    leader = tensors[first]
    assert leader is not None
    if leader.dtype not in ACTIVATION_DTYPES:
        raise KernelError(
            f"{operator}: {first} is {leader.dtype}; wanted float32, float64, bfloat16 or float16. Convert it first."
        )
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != leader.dtype:
            raise KernelError(
                f"{operator}: {name} is {tensor.dtype} and {first} is {leader.dtype}; wanted one dtype. "
                f"Convert with {name}.to({first}.dtype)."
            )
        check_device(operator, name, tensor, leader)


def check_dtype(operator: str, name: str, tensor: Tensor | None, dtype: torch.dtype) -> None:
    """For the custom operators, which convert nothing."""
    if tensor is not None and tensor.dtype != dtype:
        raise KernelError(
            f"genossm::{operator}: {name} is {tensor.dtype}; wanted {dtype}. "
            f"genossm_kernels.{operator} converts its arguments; call that."
        )


def check_device(operator: str, name: str, tensor: Tensor | None, leader: Tensor) -> None:
    if tensor is not None and tensor.device != leader.device:
        raise KernelError(f"{operator}: {name} is on {tensor.device}, the rest on {leader.device}; move it there.")


def parameter(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter or state as back ends want it: contiguous, of `dtype`; itself where it is that already."""
    if tensor.dtype == dtype and tensor.is_contiguous():
        return tensor
    return tensor.to(dtype).contiguous()


def check_reverse(operator: str, reverse: bool | tuple[bool, ...], channels: int) -> tuple[bool, ...]:
    """`reverse` as a tuple with one entry a block of equal numbers of channels."""
    if isinstance(reverse, bool):
        return (reverse,)
    blocks = tuple(reverse)
    if not blocks or not all_bools(blocks):
        raise KernelError(f"{operator}: reverse is {reverse!r}; wanted a bool or a non-empty tuple of bools.")
    if channels % len(blocks):
        raise ShapeError(
            f"{operator}: reverse has {len(blocks)} entries, which do not divide {channels} channels into equal blocks."
        )
    return blocks if len(set(blocks)) > 1 else blocks[:1]


def all_bools(blocks: tuple[object, ...]) -> bool:
    return all(isinstance(block, bool) for block in blocks)


def check_seq_idx(operator: str, seq_idx: Tensor | None, batch: int, length: int) -> Tensor | None:
    """`seq_idx` as contiguous int32 (batch, length)."""
    if seq_idx is None:
        return None
    check_shape(operator, "seq_idx", seq_idx, (batch, length), "(batch, length)")
    if seq_idx.dtype not in (torch.int32, torch.int64):
        raise KernelError(f"{operator}: seq_idx is {seq_idx.dtype}; wanted int32.")
    return seq_idx.to(torch.int32).contiguous()


def unit_stride(tensor: Tensor) -> Tensor:
    """The tensor itself where its last dimension lies contiguous, so that slices of a projection are not copied."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()

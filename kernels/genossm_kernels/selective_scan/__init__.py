"""`selective_scan`: a diagonal, input-dependent state space along the sequence (the heart of Mamba)."""

from __future__ import annotations

from typing import Literal, overload

from jaxtyping import Float, Int
from torch import Tensor

from genossm_kernels.checks import (
    ACTIVATION_DTYPES,
    all_bools,
    check_activations,
    check_device,
    check_reverse,
    check_seq_idx,
    check_shape,
    parameter,
    state_dtype,
    unit_stride,
)
from genossm_kernels.dispatch import backend_for
from genossm_kernels.errors import BackendUnavailableError, ShapeError
from genossm_kernels.operators import autocast_dtype, autocast_somewhere, intercepted, narrowed
from genossm_kernels.selective_scan import reference, torch_path
from genossm_kernels.selective_scan.autograd import run_compiled
from genossm_kernels.selective_scan.contract import ScanArguments, kind_of
from genossm_kernels.selective_scan.torch_operator import run_operator, traced_backend

__all__ = ["selective_scan"]

_NAME = "selective_scan"
_TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "seq_idx")
_DIFFERENTIABLE = {"reference": reference.run, "torch": torch_path.run}


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    return_final_state: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    return_final_state: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch length groups state"],
    C: Float[Tensor, "batch length groups state"],
    D: Float[Tensor, " channels"] | None = None,
    z: Float[Tensor, "batch length channels"] | None = None,
    delta_bias: Float[Tensor, " channels"] | None = None,
    *,
    delta_softplus: bool = True,
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Float[Tensor, "batch channels state"] | None = None,
    seq_idx: Int[Tensor, "batch length"] | None = None,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Run a diagonal, input-dependent state space along `length`.

    With dt = softplus(delta + delta_bias), each channel c of group g holds a state h of `state` numbers:

        h[t] = exp(dt[t] A[c]) h[t-1] + dt[t] u[t] B[t, g]
        y[t] = (<C[t, g], h[t]> + D[c] u[t]) * silu(z[t])

    Args:
        u, delta, z: activations of one dtype (float32, float64, bfloat16 or float16). `delta` is the step size
            before bias and softplus, in tokens; `z` gates the output.
        A: decay rates, negative, 1 / token; not its logarithm.
        B, C: input and output maps; channel c belongs to group c // (channels / groups). Same dtype as u.
        D: skip weight.   delta_bias: added to delta before softplus.
        delta_softplus: False takes `delta + delta_bias` as the step size itself.
        reverse: True runs from the last position to the first: the initial state enters at the last
            position and the final state leaves at the first. A tuple sets it for equal blocks of channels.
        initial_state: state before the first processed position; zero if None.
        seq_idx: the state is set to zero wherever this differs from its value at the previously processed
            position, so that packed sequences do not leak into one another.
        return_final_state: return `(y, final_state)`.
        backend: "auto", or "reference", "cpu", "torch", "cuda", "mamba_ssm", which raise where they cannot run.

    Slices of larger tensors are read in place where their last dimension is contiguous. Arithmetic and states
    are float32 (float64 for float64 inputs). Every tensor argument has a gradient, and so has the final state.
    Under autocast u, delta, B, C and z are taken in its dtype; A, D, delta_bias and the states stay float32.
    torch.compile and torch.export see one operator, `genossm::selective_scan`.

    Returns:
        y `(batch, length, channels)` in the dtype of `u`, and on request the state after the last processed
        position, `(batch, channels, state)` in float32 or float64.

    Raises:
        ShapeError: sizes disagree, `length` or `batch` is 0, or groups or `reverse` do not divide the channels.
        KernelError: dtypes or devices disagree.
        BackendUnavailableError: the named back end cannot run this call.

    Source: Gu & Dao 2023, "Mamba", algorithm 2.
    """
    traced = intercepted(u)
    narrow = autocast_dtype(u) if traced or autocast_somewhere() else None
    if narrow is not None:
        u, delta, B, C = (narrowed(tensor, narrow) for tensor in (u, delta, B, C))
        z = None if z is None else narrowed(z, narrow)
    given = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, initial_state, seq_idx)
    y, final_state = _run_traced(_check(*given), backend) if traced else _run(_known(*given), backend)
    return (y, final_state) if return_final_state else y


def _run(arguments: ScanArguments, backend: str) -> tuple[Tensor, Tensor]:
    module = backend_for(_NAME, backend, arguments)
    return run_compiled(module, arguments) if hasattr(module, "forward") else module.run(arguments)  # type: ignore[arg-type]


def _run_traced(arguments: ScanArguments, backend: str) -> tuple[Tensor, Tensor]:
    name = traced_backend(backend, *arguments.facts)
    if name == "mamba_ssm":
        raise BackendUnavailableError(f"{_NAME}: backend 'mamba_ssm' is for eager calls; 'cuda' can be traced.")
    return _DIFFERENTIABLE[name](arguments) if name in _DIFFERENTIABLE else run_operator(arguments, name)


def _known(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool | tuple[bool, ...],
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> ScanArguments:
    """As `_check` has them. Where it found nothing to say or to convert, calls of that kind are not checked again."""
    blocks = (reverse,) if isinstance(reverse, bool) else tuple(reverse)
    given = ScanArguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, blocks, initial_state, seq_idx)
    if all_bools(blocks):
        given.kind = kind_of(given)
        if given.kind.checked:
            return given
    arguments = _check(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, initial_state, seq_idx)
    if arguments.reverse != blocks or any(getattr(arguments, name) is not getattr(given, name) for name in _TENSORS):
        return arguments
    assert given.kind is not None
    given.kind.checked = True
    return given


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool | tuple[bool, ...],
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> ScanArguments:
    if not _agree(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx):
        _explain(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    batch, length, channels = u.shape
    dtype = state_dtype(u.dtype)
    return ScanArguments(
        u=unit_stride(u),
        delta=unit_stride(delta),
        A=parameter(A, dtype),
        B=unit_stride(B),
        C=unit_stride(C),
        D=None if D is None else parameter(D, dtype),
        z=None if z is None else unit_stride(z),
        delta_bias=None if delta_bias is None else parameter(delta_bias, dtype),
        delta_softplus=delta_softplus,
        reverse=check_reverse(_NAME, reverse, channels),
        initial_state=None if initial_state is None else parameter(initial_state, dtype),
        seq_idx=check_seq_idx(_NAME, seq_idx, batch, length),
    )


def _agree(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> bool:
    """Whether `_explain` would find nothing, in fewer steps: decoding calls this for every token and layer."""
    rows, dtype, device = u.shape, u.dtype, u.device
    if len(rows) != 3 or A.dim() != 2 or B.dim() != 4 or dtype not in ACTIVATION_DTYPES:
        return False
    batch, length, channels = rows
    d_state, groups = A.shape[1], B.shape[2]
    if batch == 0 or length == 0 or channels == 0 or d_state == 0 or groups == 0 or channels % groups:
        return False
    if (
        delta.shape != rows
        or A.shape[0] != channels
        or C.shape != B.shape
        or B.shape[0] != batch
        or B.shape[1] != length
    ):
        return False
    if B.shape[3] != d_state or delta.dtype != dtype or B.dtype != dtype or C.dtype != dtype:
        return False
    if z is not None and (z.shape != rows or z.dtype != dtype or z.device != device):
        return False
    for tensor in (D, delta_bias):
        if tensor is not None and (tensor.shape != (channels,) or tensor.device != device):
            return False
    if initial_state is not None and (
        initial_state.shape != (batch, channels, d_state) or initial_state.device != device
    ):
        return False
    if seq_idx is not None and seq_idx.device != device:
        return False
    return delta.device == device and A.device == device and B.device == device and C.device == device


def _explain(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    """Raise for the first thing that does not agree."""
    if u.dim() != 3 or min(u.shape) == 0:
        raise ShapeError(f"{_NAME}: u is {tuple(u.shape)}; wanted (batch, length, channels), none of them 0.")
    if A.dim() != 2 or B.dim() != 4:
        raise ShapeError(
            f"{_NAME}: A is {tuple(A.shape)} and B {tuple(B.shape)}; wanted (channels, state) and "
            "(batch, length, groups, state). Give a B without groups one with B.unsqueeze(2)."
        )
    batch, length, channels = u.shape
    d_state, groups = A.shape[1], B.shape[2]
    if d_state == 0 or groups == 0 or channels % groups:
        raise ShapeError(f"{_NAME}: {groups} groups of B must divide {channels} channels; d_state is {d_state}.")
    check_shape(_NAME, "delta", delta, (batch, length, channels), "(batch, length, channels)")
    check_shape(_NAME, "A", A, (channels, d_state), "(channels, state)")
    check_shape(_NAME, "B", B, (batch, length, groups, d_state), "(batch, length, groups, state)")
    check_shape(_NAME, "C", C, (batch, length, groups, d_state), "(batch, length, groups, state)")
    if z is not None:
        check_shape(_NAME, "z", z, (batch, length, channels), "(batch, length, channels)")
    if D is not None:
        check_shape(_NAME, "D", D, (channels,), "(channels,)")
    if delta_bias is not None:
        check_shape(_NAME, "delta_bias", delta_bias, (channels,), "(channels,)")
    if initial_state is not None:
        check_shape(_NAME, "initial_state", initial_state, (batch, channels, d_state), "(batch, channels, state)")
    check_activations(_NAME, "u", {"u": u, "delta": delta, "B": B, "C": C, "z": z})
    others = (("A", A), ("D", D), ("delta_bias", delta_bias), ("initial_state", initial_state), ("seq_idx", seq_idx))
    for name, tensor in others:
        check_device(_NAME, name, tensor, u)

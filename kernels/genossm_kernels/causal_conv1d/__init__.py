"""`causal_conv1d`: a short depthwise convolution that sees no position ahead of its own, with SiLU fused."""

from __future__ import annotations

from typing import Literal, overload

from jaxtyping import Float, Int
from torch import Tensor

from genossm_kernels.causal_conv1d import reference, torch_path
from genossm_kernels.causal_conv1d.autograd import run_compiled
from genossm_kernels.causal_conv1d.contract import ConvArguments, kind_of
from genossm_kernels.causal_conv1d.torch_operator import run_operator, traced_backend
from genossm_kernels.checks import (
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
from genossm_kernels.errors import BackendUnavailableError, KernelError, ShapeError
from genossm_kernels.operators import autocast_dtype, autocast_somewhere, intercepted, narrowed

__all__ = ["causal_conv1d"]

_NAME = "causal_conv1d"
_TENSORS = ("x", "weight", "bias", "initial_state", "seq_idx")
_DIFFERENTIABLE = {"reference": reference.run, "torch": torch_path.run}


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Literal["silu"] | None = "silu",
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    return_final_state: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Literal["silu"] | None = "silu",
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    return_final_state: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


def causal_conv1d(
    x: Float[Tensor, "batch length channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None = None,
    *,
    activation: Literal["silu"] | None = "silu",
    reverse: bool | tuple[bool, ...] = False,
    initial_state: Float[Tensor, "batch tail channels"] | None = None,
    seq_idx: Int[Tensor, "batch length"] | None = None,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve every channel with its own `width` taps over the present and the `width - 1` inputs before it.

        y[t] = activation(bias + sum_k weight[:, k] x[t - (width - 1) + k])

    Args:
        x: float32, float64, bfloat16 or float16; a slice of a larger tensor is read in place where its last
            dimension is contiguous.
        weight: taps, oldest input first: `weight[:, width - 1]` meets x[t]. `nn.Conv1d(..., groups=channels)`
            holds the same numbers as `(channels, 1, width)`.
        activation: "silu" or None.
        reverse: True runs from the last position to the first: "before" then means a later position. A tuple
            sets it for equal blocks of channels.
        initial_state: the `width - 1` inputs before the first processed position, in processing order, oldest
            first; zero if None.
        seq_idx: inputs from before a change of this value, in processing order, count as zero.
        return_final_state: return `(y, final_state)`.
        backend: "auto", or "reference", "cpu", "torch", "cuda", "mamba_ssm", which raise where they cannot run.

    Under autocast x and the initial state are taken in its dtype; weight and bias stay float32. torch.compile and
    torch.export see one operator, `genossm::causal_conv1d`.

    Returns:
        y `(batch, length, channels)` in the dtype of `x`, and on request the last `width - 1` inputs in processing
        order, oldest first, `(batch, width - 1, channels)` in the dtype of `x`, with those of an earlier
        sequence (`seq_idx`) set to zero.

    Raises:
        ShapeError: sizes disagree, one of them is 0, or `reverse` does not divide the channels.
        KernelError: dtypes or devices disagree, or an unknown activation.
        BackendUnavailableError: the named back end cannot run this call.

    Source: Gu & Dao 2023, "Mamba", section 3.4.
    """
    traced = intercepted(x)
    narrow = autocast_dtype(x) if traced or autocast_somewhere() else None
    if narrow is not None:
        x = narrowed(x, narrow)
    given = (x, weight, bias, activation, reverse, initial_state, seq_idx)
    y, final_state = _run_traced(_check(*given), backend) if traced else _run(_known(*given), backend)
    return (y, final_state) if return_final_state else y


def _run(arguments: ConvArguments, backend: str) -> tuple[Tensor, Tensor]:
    module = backend_for(_NAME, backend, arguments)
    return run_compiled(module, arguments) if hasattr(module, "forward") else module.run(arguments)  # type: ignore[arg-type]


def _run_traced(arguments: ConvArguments, backend: str) -> tuple[Tensor, Tensor]:
    name = traced_backend(backend, *arguments.facts)
    if name == "mamba_ssm":
        raise BackendUnavailableError(f"{_NAME}: backend 'mamba_ssm' is for eager calls; 'cuda' can be traced.")
    return _DIFFERENTIABLE[name](arguments) if name in _DIFFERENTIABLE else run_operator(arguments, name)


def _known(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    reverse: bool | tuple[bool, ...],
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> ConvArguments:
    """As `_check` has them. Where it found nothing to say or to convert, calls of that kind are not checked again."""
    blocks = (reverse,) if isinstance(reverse, bool) else tuple(reverse)
    given = ConvArguments(x, weight, bias, activation == "silu", blocks, initial_state, seq_idx)
    if all_bools(blocks) and activation in ("silu", None):
        given.kind = kind_of(given)
        if given.kind.checked:
            return given
    arguments = _check(x, weight, bias, activation, reverse, initial_state, seq_idx)
    if arguments.reverse != blocks or any(getattr(arguments, name) is not getattr(given, name) for name in _TENSORS):
        return arguments
    assert given.kind is not None
    given.kind.checked = True
    return given


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    reverse: bool | tuple[bool, ...],
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> ConvArguments:
    if x.dim() != 3 or min(x.shape) == 0:
        raise ShapeError(f"{_NAME}: x is {tuple(x.shape)}; wanted (batch, length, channels), none of them 0.")
    batch, length, channels = x.shape
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] == 0:
        raise ShapeError(
            f"{_NAME}: weight is {tuple(weight.shape)}; wanted (channels, width) = ({channels}, at least 1). "
            "The weight of an nn.Conv1d needs .squeeze(1)."
        )
    if activation not in ("silu", None):
        raise KernelError(f"{_NAME}: activation is {activation!r}; wanted 'silu' or None.")
    if bias is not None:
        check_shape(_NAME, "bias", bias, (channels,), "(channels,)")
    if initial_state is not None:
        tail = (batch, weight.shape[1] - 1, channels)
        check_shape(_NAME, "initial_state", initial_state, tail, "(batch, width - 1, channels)")
    check_activations(_NAME, "x", {"x": x})
    parameters = {"weight": weight, "bias": bias, "initial_state": initial_state, "seq_idx": seq_idx}
    for name, tensor in parameters.items():
        check_device(_NAME, name, tensor, x)

    dtype = state_dtype(x.dtype)
    return ConvArguments(
        x=unit_stride(x),
        weight=parameter(weight, dtype),
        bias=None if bias is None else parameter(bias, dtype),
        silu=activation == "silu",
        reverse=check_reverse(_NAME, reverse, channels),
        initial_state=None if initial_state is None else parameter(initial_state, x.dtype),
        seq_idx=check_seq_idx(_NAME, seq_idx, batch, length),
    )

"""`add_norm`: the addition to a residual stream and the normalisation after it, in one pass over memory."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from genossm_kernels.add_norm import reference, torch_path
from genossm_kernels.add_norm.autograd import run_compiled
from genossm_kernels.add_norm.contract import NormArguments, in_rows, kind_of
from genossm_kernels.add_norm.torch_operator import run_operator, traced_backend
from genossm_kernels.checks import ACTIVATION_DTYPES, check_device, check_shape, parameter, state_dtype
from genossm_kernels.dispatch import choose_backend
from genossm_kernels.errors import KernelError, ShapeError
from genossm_kernels.operators import autocast_dtype, intercepted

__all__ = ["add_norm"]

_NAME = "add_norm"
_TENSORS = ("x", "residual", "weight", "bias")
_DIFFERENTIABLE = {"reference": reference.run, "torch": torch_path.run, "cpu": torch_path.run}


def add_norm(
    x: Float[Tensor, "*rows channels"] | None,
    residual: Float[Tensor, "*rows channels"],
    weight: Float[Tensor, " channels"],
    bias: Float[Tensor, " channels"] | None = None,
    *,
    kind: Literal["rms", "layer"] = "rms",
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "*rows channels"], Float[Tensor, "*rows channels"]]:
    """Add x to the residual stream and normalise the sum along its last dimension.

        stream = residual + x
        y = stream / sqrt(mean(stream²) + eps) * weight + bias             "rms"
        y = (stream - mean) / sqrt(var + eps) * weight + bias              "layer"

    Arithmetic is float32 (float64 for a float64 stream) whatever the dtypes are; the stream is rounded to its own
    dtype, and what was rounded is normalised.

    Args:
        x: what a mixer put out; None adds nothing.
        residual: float32, float64, bfloat16 or float16, which need not be the dtype of x.
        dtype: of y; that of autocast inside it, else that of the weight, if None.
        backend: "auto", or "reference", "cpu", "torch", "cuda", which raise where they cannot run.

    A compiler gets PyTorch's own operators, which it fuses by itself; to dispatch modes and the like the call on a GPU
    is one operator, `genossm::add_norm`.

    Returns:
        y, and the stream in the dtype of `residual`. Without x that is what was given, on the same memory where its
        rows have one stride: whoever goes on with it has its gradient added to the norm's in the same pass over memory.

    Raises:
        ShapeError: sizes disagree, or there are no channels.
        KernelError: dtypes or devices disagree, or an unknown kind.
        BackendUnavailableError: the named back end cannot run this call.

    Source: Zhang & Sennrich 2019; Ba et al. 2016.
    """
    given = (x, residual, weight, bias, kind, eps, dtype or autocast_dtype(residual) or weight.dtype)
    if intercepted(residual):
        arguments = _check(*given)
        name = "torch" if torch.compiler.is_compiling() else traced_backend(backend, *arguments.facts)
        return _DIFFERENTIABLE[name](arguments) if name in _DIFFERENTIABLE else run_operator(arguments, name)
    arguments = _known(*given)
    module = choose_backend(_NAME, backend, arguments.call)
    return run_compiled(module, arguments) if hasattr(module, "forward") else module.run(arguments)  # type: ignore[arg-type]


def _known(
    x: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kind: str,
    eps: float,
    dtype: torch.dtype,
) -> NormArguments:
    """As `_check` has them. Where it found nothing to say or to convert, calls of that kind are not checked again."""
    if kind not in ("rms", "layer"):
        return _check(x, residual, weight, bias, kind, eps, dtype)
    given = NormArguments(x, residual, weight, bias, kind == "layer", eps, dtype)
    given.kind = kind_of(given)
    if given.kind.checked:
        return given
    arguments = _check(x, residual, weight, bias, kind, eps, dtype)
    if any(getattr(arguments, name) is not getattr(given, name) for name in _TENSORS):
        return arguments
    given.kind.checked = True
    return given


def _check(
    x: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kind: str,
    eps: float,
    dtype: torch.dtype,
) -> NormArguments:
    if residual.dim() < 1 or residual.shape[-1] == 0:
        raise ShapeError(f"{_NAME}: residual is {tuple(residual.shape)}; wanted (..., channels), at least one channel.")
    if kind not in ("rms", "layer"):
        raise KernelError(f"{_NAME}: kind is {kind!r}; wanted 'rms' or 'layer'.")
    channels = residual.shape[-1:]
    check_shape(_NAME, "weight", weight, tuple(channels), "(channels,)")
    if bias is not None:
        check_shape(_NAME, "bias", bias, tuple(channels), "(channels,)")
    if x is not None:
        check_shape(_NAME, "x", x, tuple(residual.shape), "the shape of the residual")
    for name, tensor in {"residual": residual, "x": x, "weight": weight, "bias": bias}.items():
        check_device(_NAME, name, tensor, residual)
        if tensor is not None and tensor.dtype not in ACTIVATION_DTYPES:
            raise KernelError(f"{_NAME}: {name} is {tensor.dtype}; wanted float32, float64, bfloat16 or float16.")
    wide = state_dtype(residual.dtype)
    return NormArguments(
        x=None if x is None else in_rows(x),
        residual=in_rows(residual),
        weight=parameter(weight, wide),
        bias=None if bias is None else parameter(bias, wide),
        layer=kind == "layer",
        eps=eps,
        dtype=dtype,
    )

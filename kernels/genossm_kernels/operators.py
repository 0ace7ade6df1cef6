"""Custom operators of PyTorch, for whatever watches calls go by: compilers, exporters, dispatch modes, fake tensors.

A plain eager call does not pass through them: the way through the dispatcher costs more than a small kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from genossm_kernels.errors import KernelError

_NAMESPACE = "genossm"
_Function = TypeVar("_Function", bound=Callable[..., Any])
_PLAIN = (Tensor, torch.nn.Parameter)
_DEVICES_WITH_AUTOCAST = ("cuda", "cpu", "xpu", "mps")
# No aliases, no mutation, strides as the operator got them when it was traced.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def intercepted(tensor: Tensor) -> bool:
    """Whether something between the caller and the kernels should see an operator and not a pointer."""
    return torch.compiler.is_compiling() or type(tensor) not in _PLAIN or is_in_torch_dispatch_mode()


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """What autocast wants activations on this tensor's device to be; None outside it."""
    device = tensor.device.type
    if device not in _DEVICES_WITH_AUTOCAST or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def _autocast_somewhere() -> bool:
    return True


# Whether autocast is on for any device: most often it is not, and then the question costs a tenth.
autocast_somewhere: Callable[[], bool] = getattr(torch._C, "_is_any_autocast_enabled", _autocast_somewhere)


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As autocast does it: floats become `dtype`, float64 stays."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def recorder(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply`, without its search of all arguments for what left a functorch transform: half of its time."""
    direct = super(torch.autograd.Function, function).apply  # type: ignore[misc]

    def apply(*arguments: Any) -> Any:
        return function.apply(*arguments) if torch._C._are_functorch_transforms_active() else direct(*arguments)

    return apply


def constant_when_traced(function: _Function) -> _Function:
    """A compiler that meets a call evaluates it there and then.

    What torch.compiler.assume_constant_result does, which would load the compiler for everyone.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def register(
    name: str,
    signature: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> None:
    """Define `genossm::name`. Once a process: a second copy of this package uses the first one's.

    autograd: what saves for the backward pass, and the backward pass; without it a gradient through it is an error.
    """
    if hasattr(getattr(torch.ops, _NAMESPACE), name):
        return
    qualified = f"{_NAMESPACE}::{name}"
    torch.library.define(qualified, signature, tags=_TAGS)
    torch.library.impl(qualified, "default", implementation)
    torch.library.register_fake(qualified, fake)
    save, differentiate = autograd or (None, _refuse_gradient)
    torch.library.register_autograd(qualified, differentiate, setup_context=save)


def _refuse_gradient(*_: Any) -> None:
    raise KernelError("Second derivatives are not there for the fused kernels; take the back end 'torch' for them.")


def given(tensors: tuple[Tensor | None, ...], wanted: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
    """An operator returns tensors only: those of inputs that were not there are None again."""
    return tuple(None if input is None else tensor for tensor, input in zip(tensors, wanted, strict=True))

"""Back ends that make the tensors of the real ones and compute nothing, for tensors that have shapes and no memory.

A fused mixer calls its back ends past the dispatcher, where nothing could count what they make. Work space of a kernel,
which is gone when it returns, is not made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from torch import Tensor

from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients
from genossm_kernels.selective_scan.contract import (
    CompiledBackend,
    ScanArguments,
    ScanCall,
    ScanGradients,
    ScanTargets,
)

_OF_THIS_THREAD = threading.local()
_PLACED = ("u", "delta", "z", "B", "C")  # gradients that may have memory of the caller's


@contextmanager
def sizes_alone() -> Iterator[None]:
    """Inside, mixers take these back ends in place of those they would call."""
    outer = sizing()
    _OF_THIS_THREAD.on = True
    try:
        yield
    finally:
        _OF_THIS_THREAD.on = outer


def sizing() -> bool:
    """Whether this thread is inside `sizes_alone`."""
    return getattr(_OF_THIS_THREAD, "on", False)


class SizedConvolution:
    """Stands for any back end of `causal_conv1d`."""

    PLACES = True

    def unavailable(self, call: ConvCall) -> str | None:  # noqa: ARG002
        return None

    def forward(self, arguments: ConvArguments, *, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, (channels, width) = arguments.x, arguments.weight.shape
        return x.new_empty(x.shape) if y is None else y, x.new_empty((x.shape[0], width - 1, channels))

    def backward(
        self,
        arguments: ConvArguments,
        grad_y: Tensor,  # noqa: ARG002
        grad_final_state: Tensor | None,  # noqa: ARG002
        *,
        grad_x: Tensor | None = None,
        add: bool = False,  # noqa: ARG002
    ) -> ConvGradients:
        x, state = arguments.x, arguments.initial_state
        return ConvGradients(
            x=x.new_empty(x.shape) if grad_x is None else grad_x,
            weight=like(arguments.weight),
            bias=None if arguments.bias is None else like(arguments.bias),
            initial_state=None if state is None else like(state),
        )


class SizedScan:
    """Stands for a back end of `selective_scan`.   kept: as the real one has it."""

    PLACES = True

    def __init__(self, backend: CompiledBackend) -> None:
        self.kept_shape = backend.kept_shape

    def unavailable(self, call: ScanCall) -> str | None:  # noqa: ARG002
        return None

    def forward(
        self,
        arguments: ScanArguments,
        *,
        need_backward: bool,
        y: Tensor | None = None,
        add: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        u, dtype = arguments.u, arguments.state_dtype
        final_state = u.new_empty((u.shape[0], *arguments.A.shape), dtype=dtype)
        kept = u.new_empty(self.kept_shape(arguments), dtype=dtype) if need_backward else None
        return u.new_empty(u.shape) if y is None else y, final_state, kept

    def backward(
        self,
        arguments: ScanArguments,
        kept: Tensor,  # noqa: ARG002
        grad_y: Tensor,  # noqa: ARG002
        grad_final_state: Tensor | None,  # noqa: ARG002
        *,
        targets: ScanTargets | None = None,
    ) -> ScanGradients:
        made = {
            name: None if tensor is None else like(tensor)
            for name, tensor in ((field.name, getattr(arguments, field.name)) for field in fields(ScanGradients))
            if targets is None or name not in _PLACED
        }
        placed: Any = {} if targets is None else {name: getattr(targets, name) for name in _PLACED}
        return ScanGradients(**made, **placed)  # pyright: ignore[reportArgumentType]


def like(tensor: Tensor) -> Tensor:
    """New and contiguous."""
    return tensor.new_empty(tensor.shape)

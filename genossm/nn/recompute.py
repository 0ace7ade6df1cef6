"""Tensors that the backward pass makes again instead of keeping: activation memory for a little arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Recompute = Literal["nothing", "cheap", "projections"]
LEVELS: tuple[Recompute, ...] = get_args(Recompute)
_OF_THIS_THREAD = threading.local()


@dataclass(eq=False)
class _Source:
    """How a tensor is made again, and the result for as long as saved views of it wait for it."""

    make: Callable[..., Tensor]
    inputs: list[Any]
    autocast: tuple[str, torch.dtype, bool]
    views: int = 0
    taken: int = 0
    made: Tensor | None = None

    def take(self) -> Tensor:
        made = self._make() if self.made is None else self.made
        self.taken = (self.taken + 1) % self.views
        self.made = made if self.taken else None
        return made

    def _make(self) -> Tensor:
        device, dtype, enabled = self.autocast
        with torch.no_grad(), torch.autocast(device, dtype, enabled=enabled):
            return self.make(*map(_unpack, self.inputs))


@dataclass(frozen=True, eq=False)
class _View:
    source: _Source
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, eq=False)
class _Kept:
    tensor: Tensor
    version: int


@dataclass(eq=False)
class _Plan:
    """What has been said so far of one region of the forward pass."""

    level: int
    sources: dict[int, _Source] = field(default_factory=dict)
    # Until the region ends: memory given back could belong to another tensor next.
    alive: list[Tensor] = field(default_factory=list)

    def pack(self, tensor: Tensor) -> _View | _Kept:
        source = self.sources.get(_storage_of(tensor))
        if source is None:
            return _Kept(tensor, tensor._version)
        source.views += 1
        return _View(source, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


def _storage_of(tensor: Tensor) -> int:
    """What views of one storage share; fake tensors have no address, but a storage too."""
    return tensor.untyped_storage()._cdata


def _unpack(packed: _View | _Kept) -> Tensor:
    if isinstance(packed, _View):
        return packed.source.take().as_strided(packed.size, packed.stride, packed.offset)
    if packed.tensor._version != packed.version:
        raise RuntimeError(
            f"A tensor of shape {tuple(packed.tensor.shape)} was changed in place between the forward and the backward "
            "pass, which needs it. Step the optimizer after the backward pass."
        )
    return packed.tensor


@contextmanager
def recomputing(level: Recompute) -> Iterator[None]:
    """A region whose `forgettable` tensors, up to `level`, autograd does not keep.

    Nothing happens where no gradient is recorded.
    """
    if level == "nothing" or not torch.is_grad_enabled():
        yield
        return
    outer = getattr(_OF_THIS_THREAD, "plan", None)
    plan = _OF_THIS_THREAD.plan = _Plan(LEVELS.index(level))
    try:
        with torch.autograd.graph.saved_tensors_hooks(plan.pack, _unpack):
            yield
    finally:
        _OF_THIS_THREAD.plan = outer
        # Autograd keeps the hooks, and so the plan, as long as the graph; what it was about must not live as long.
        plan.sources.clear()
        plan.alive.clear()


def forgets(level: Recompute) -> bool:
    """Whether tensors of this level are to be made again: for functions of autograd that do so themselves."""
    plan: _Plan | None = getattr(_OF_THIS_THREAD, "plan", None)
    return plan is not None and LEVELS.index(level) <= plan.level


def forgettable(tensor: Tensor, level: Recompute, make: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`tensor`, which is `make(*inputs)` bit for bit and may be made so again in the backward pass.

    To be said before anything saves it. `make` gives new memory with the strides that `tensor` has, and reads no tensor
    but its inputs: weights are among them. A compiler decides for itself what to keep.
    """
    if torch.compiler.is_compiling():
        return tensor
    plan: _Plan | None = getattr(_OF_THIS_THREAD, "plan", None)
    if plan is None or LEVELS.index(level) > plan.level:
        return tensor
    device = tensor.device.type
    autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
    detached = [plan.pack(input.detach()) for input in inputs]
    plan.sources[_storage_of(tensor)] = _Source(make, detached, autocast)
    plan.alive.append(tensor)
    return tensor

"""Who wants to see the states that the mixers end with says so here; nobody does, unless a watcher asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_OF_THIS_THREAD = threading.local()


@contextmanager
def watching_states() -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Yield a mapping that fills with the scan states (batch, d_inner, d_state) of every mixer that runs meanwhile.

    They are cut off from the graph. A mixer that runs twice (both strands) has two.
    """
    found: dict[nn.Module, list[Tensor]] = {}
    outer = getattr(_OF_THIS_THREAD, "found", None)
    _OF_THIS_THREAD.found = found
    try:
        yield found
    finally:
        _OF_THIS_THREAD.found = outer


def notice_state(mixer: nn.Module, state: Tensor) -> None:
    """Mixers say here what state they end with."""
    if torch.compiler.is_compiling():
        return
    found = getattr(_OF_THIS_THREAD, "found", None)
    if found is not None:
        found.setdefault(mixer, []).append(state.detach())


def watched(module: nn.Module) -> bool:
    """Whether somebody wants to see the call of the module itself."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)

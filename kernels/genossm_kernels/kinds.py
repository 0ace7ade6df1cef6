"""Calls that differ in nothing but values and addresses are of one kind; what is found out about it is kept with it.

A call costs as much as Python does before the first launch. With this that is one look-up: checks, the choice of a plan
and the parameters of launches are done at the first call of a kind.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from types import ModuleType
from typing import Any

from torch import Tensor

_MOST_KINDS = 1024  # of an operator; then all are forgotten, which costs a hundred microseconds a kind


class Kind:
    """What is known of a kind of call."""

    __slots__ = ("as_operator", "backends", "checked", "prepared")

    def __init__(self) -> None:
        self.checked = False  # the public function found nothing to say and nothing to convert
        self.as_operator = False  # the same of the custom operator
        self.backends: dict[str, ModuleType] = {}  # what was chosen for a name
        self.prepared: dict[Hashable, Any] = {}  # what a back end keeps, under keys of its own


class Kinds:
    """The kinds of one operator. Threads may share it: two that meet a new kind at once do the same work twice."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Kind] = {}
        self._last: tuple[Hashable, Kind] = ((), Kind())
        _all.add(self)

    def of(self, key: Hashable) -> Kind:
        last, kind = self._last
        if last == key:  # as in the layers of a stack: comparing is cheaper than hashing
            return kind
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KINDS:
                self._known.clear()
            known = self._known.setdefault(key, Kind())
        self._last = (key, known)
        return known

    def forget(self) -> None:
        self._known.clear()
        self._last = ((), Kind())


_all: weakref.WeakSet[Kinds] = weakref.WeakSet()


def forget_all() -> None:
    """What was found out under a test's pretences goes with them."""
    for kinds in _all:
        kinds.forget()


def traits(tensor: Tensor | None) -> Hashable:
    """All of a tensor that a kind depends on."""
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

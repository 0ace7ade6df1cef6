"""Launches prepared once: a call then writes addresses into one buffer and queues them."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

# Queues a kernel on a stream; the second argument is the address of an array that holds the parameters' address.
Launch = Callable[[Any, int], None]


class _Buffer(NamedTuple):
    """Parameters in memory, and the array of their one address that a launch takes."""

    parameters: ctypes.Array[ctypes.c_char]
    pointer: ctypes.c_void_p
    array: int


class Program:
    """Launches in their order, of kernels that take the same parameters. Calls differ in addresses alone."""

    def __init__(self, launches: Sequence[Launch], parameters: ctypes.Structure, addresses: Sequence[str]) -> None:
        """parameters: all but addresses filled in.   addresses: the fields that a call fills, in their order there."""
        self._launches = tuple(launches)
        self._template = bytes(parameters)
        self._first, end, self._write = _writer(type(parameters), tuple(addresses))
        assert not self._template[self._first : end].strip(b"\0"), "something else lies between the addresses"
        # Taken and given back one by one, so that no two calls, in threads or in a finaliser between, share one.
        self._free: list[_Buffer] = []

    def run(self, stream: Any, *addresses: int) -> None:
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = self._new_buffer()
        self._write(buffer.parameters, self._first, *addresses)
        for launch in self._launches:
            launch(stream, buffer.array)
        self._free.append(buffer)  # a launch has copied what it needs

    def _new_buffer(self) -> _Buffer:
        parameters = ctypes.create_string_buffer(self._template, len(self._template))
        pointer = ctypes.c_void_p(ctypes.addressof(parameters))
        return _Buffer(parameters, pointer, ctypes.addressof(pointer))


@functools.cache
def _writer(structure: type[ctypes.Structure], addresses: tuple[str, ...]) -> tuple[int, int, Callable[..., None]]:
    """Where these fields begin and end, and what writes them all."""
    offsets = [getattr(structure, name).offset for name in addresses]
    ends = [offsets[0], *(offset + 8 for offset in offsets)]
    gaps = [offset - end for offset, end in zip(offsets, ends, strict=False)]
    assert all(gap >= 0 for gap in gaps), "addresses are not in the structure's order"
    # `x` writes zeros: the fields between may be addresses that stay null, and nothing else.
    return offsets[0], ends[-1], struct.Struct("=" + "".join(f"{gap}xQ" for gap in gaps)).pack_into


class Layout(NamedTuple):
    """Contiguous memory to be made, as `Launcher.empty` takes it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, shape: Sequence[int], dtype: torch.dtype) -> Layout:
        strides = [1]
        for size in reversed(shape[1:]):
            strides.append(strides[-1] * max(1, size))
        return cls(tuple(shape), tuple(reversed(strides)), dtype)

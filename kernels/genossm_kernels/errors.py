"""What an operator raises. A message says what, got, wanted, and the next step."""

from __future__ import annotations


class KernelError(ValueError):
    """Base of all errors of the operators; by itself: a wrong dtype, device or option."""


class ShapeError(KernelError):
    """Tensors whose sizes contradict each other or the operator."""


class BackendUnavailableError(KernelError):
    """A back end that was asked for by name and cannot run these arguments here."""

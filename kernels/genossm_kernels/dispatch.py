"""Which back end runs a call. `auto` decides by device and logs its reason once; a named one runs or raises."""

from __future__ import annotations

import functools
import importlib
import logging
from types import ModuleType
from typing import Protocol

import torch

from genossm_kernels.errors import BackendUnavailableError, KernelError
from genossm_kernels.kinds import Kind

BACKENDS = ("auto", "reference", "cpu", "torch", "cuda", "mamba_ssm")
# `torch.py` inside a folder would be found by no one but read as the real torch by everyone.
_MODULE_NAMES = {"torch": "torch_path"}
_FUSED_BY_DEVICE = {"cpu": "cpu", "cuda": "cuda"}
_REMEDY = {
    "cpu": "Install numba to get the fast CPU path.",
    "cuda": "Install the CUDA run-time compiler that genossm's GPU instructions name to get the fused kernel.",
}

logger = logging.getLogger("genossm_kernels")


class Call(Protocol):
    """What of a call decides which back ends can run it; hashable, and each operator has its own."""

    @property
    def device(self) -> torch.device: ...


class Arguments(Protocol):
    """Of an eager call."""

    @property
    def call(self) -> Call: ...

    @property
    def kind(self) -> Kind | None: ...


def backend_for(operator: str, backend: str, arguments: Arguments) -> ModuleType:
    """`choose_backend` for these arguments, asked once a kind of call."""
    kind = arguments.kind
    module = None if kind is None else kind.backends.get(backend)
    if module is None:
        module = choose_backend(operator, backend, arguments.call)
        if kind is not None:
            kind.backends[backend] = module
    return module


@functools.lru_cache(maxsize=1024)
def choose_backend(operator: str, backend: str, call: Call) -> ModuleType:
    """The module that will run such calls; raises BackendUnavailableError for a named one that cannot."""
    if backend == "auto":
        return _choose_automatically(operator, call)
    if backend not in BACKENDS:
        raise KernelError(f"{operator}: unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    module, reason = _load(operator, backend)
    if module is not None:
        reason = module.unavailable(call)
    if module is None or reason is not None:
        raise BackendUnavailableError(
            f"{operator}: backend {backend!r} cannot run this call: {reason}. Name another backend, or pass 'auto'."
        )
    return module


def backend_name(operator: str, backend: str, call: Call) -> str:
    """The name of what `choose_backend` chooses."""
    module = choose_backend(operator, backend, call).__name__.rpartition(".")[2]
    return next((name for name, file in _MODULE_NAMES.items() if file == module), module)


def _choose_automatically(operator: str, call: Call) -> ModuleType:
    device_type = call.device.type
    fused_name = _FUSED_BY_DEVICE.get(device_type)
    reason: str | None = f"there is no fused kernel for device type {device_type!r}"
    if fused_name is not None:
        fused, reason = _load(operator, fused_name)
        if fused is not None:
            reason = fused.unavailable(call)
            if reason is None:
                _log_choice(operator, fused_name, device_type)
                return fused
    _warn_slow(operator, device_type, str(reason))
    module, reason = _load(operator, "torch")
    if module is None:
        raise BackendUnavailableError(f"{operator}: no backend can run on {device_type!r}: {reason}.")
    return module


@functools.cache
def _load(operator: str, backend: str) -> tuple[ModuleType | None, str | None]:
    name = f"genossm_kernels.{operator}.{_MODULE_NAMES.get(backend, backend)}"
    try:
        return importlib.import_module(name), None
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, "this version of genossm does not contain it"
        return None, f"the package {error.name!r} is not installed"
    except ImportError as error:
        return None, f"it failed to load: {error}"


@functools.cache
def _log_choice(operator: str, backend: str, device_type: str) -> None:
    logger.info("%s: backend %r, the fused kernel for device type %r", operator, backend, device_type)


@functools.cache
def _warn_slow(operator: str, device_type: str, reason: str) -> None:
    logger.warning(
        "%s: using the plain PyTorch path, which is correct and slow: %s. %s",
        operator,
        reason,
        _REMEDY.get(device_type, "Use a CPU or a CUDA device for the fused kernels."),
    )

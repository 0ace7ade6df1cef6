"""Kernels on a GPU: compiled for its architecture, launched on PyTorch's current stream."""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from genossm_kernels._cuda.compiler import compile_kernels, missing_package, unusable_reason
from genossm_kernels._cuda.program import Launch, Layout

_DEFAULT_SHARED_BYTES = 48 * 1024
OLDEST_CAPABILITY = (8, 0)
_Result = TypeVar("_Result")


class Module(Protocol):
    """The kernels of one source file with one set of macros."""

    def launch(
        self, stream: Any, kernel: str, blocks: int, threads: int, shared_bytes: int, parameters: ctypes.Structure
    ) -> None:
        """Queue `kernel(parameters)` on what `Launcher.active` gave; `parameters` is copied."""
        ...

    def bind(self, kernel: str, blocks: int, threads: int, shared_bytes: int, parameter_bytes: int) -> Launch:
        """A launch for a `Program`: all of it but the stream and the parameters."""
        ...

    def resident_blocks(self, kernel: str, threads: int, shared_bytes: int) -> int:
        """How many blocks of the kernel the device holds at once."""
        ...


class Launcher(Protocol):
    """A device that runs kernels."""

    multiprocessors: int
    shared_bytes_per_block: int
    clusters: bool  # of blocks that reach one another's shared memory

    def module(self, path: Path, macros: tuple[tuple[str, int], ...]) -> Module:
        """The kernels of a source file compiled with `macros`; in one order each time, they are its key."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """While inside, this device is the thread's; gives PyTorch's current stream on it, for `Module.launch`."""
        ...

    def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """`function(stream, *arguments)` inside `active`, at less cost."""
        ...

    def empty(self, layout: Layout) -> torch.Tensor:
        """Memory on this device, which is the thread's."""
        ...


def address(tensor: torch.Tensor | None) -> int:
    """Where a tensor begins, as kernels' parameters have it: 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def unavailable_reason(device: torch.device) -> str | None:
    """None if kernels can be compiled and launched on `device`."""
    if device.type != "cuda":
        return f"the tensors are on {device}, not on a CUDA device"
    if torch.version.hip is not None:
        return "this PyTorch is built for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]} is older than 8.0"
    return unusable_reason(capability, _driver_version())


@functools.cache
def _driver_version() -> int:
    """The CUDA version the driver supports, 13000 for 13.0; 0 where the package that asks is missing."""
    return 0 if missing_package() is not None else int(_check(_driver().cuDriverGetVersion()))


def launcher_for(device: torch.device) -> Launcher:
    """The launcher of a CUDA device; one for each."""
    return _gpu(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _gpu(index: int) -> Gpu:
    return Gpu(index)


class Gpu:
    """One GPU. Modules are compiled and loaded once a process."""

    def __init__(self, index: int) -> None:
        properties = torch.cuda.get_device_properties(index)
        self.index = index
        self.architecture = f"sm_{properties.major}{properties.minor}"
        self.multiprocessors = properties.multi_processor_count
        self.shared_bytes_per_block = int(properties.shared_memory_per_block_optin)
        self.clusters = properties.major >= 9
        self._context: Any = None
        self._bound = threading.local()
        self._streams: dict[int, Any] = {}
        self._modules: dict[tuple[Path, tuple[tuple[str, int], ...]], GpuModule] = {}

    def active(self) -> AbstractContextManager[Any]:
        if torch.cuda.current_device() == self.index:
            return nullcontext(self._stream())
        return self._switched()

    def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        if _current_device() == self.index:
            return function(self._stream(), *arguments)
        with self._switched() as stream:
            return function(stream, *arguments)

    def empty(self, layout: Layout) -> torch.Tensor:
        return _empty_strided(*layout)

    @contextmanager
    def _switched(self) -> Iterator[Any]:
        with torch.cuda.device(self.index):
            yield self._stream()

    def _stream(self) -> Any:
        """PyTorch's current stream, and its context for threads that have none, as autograd's begin."""
        driver = _driver()
        if not getattr(self._bound, "context", False):
            if int(_check(driver.cuCtxGetCurrent())) == 0:
                if self._context is None:
                    self._context = _check(driver.cuDevicePrimaryCtxRetain(driver.CUdevice(self.index)))
                _check(driver.cuCtxSetCurrent(self._context))
            self._bound.context = True
        handle = _raw_stream(self.index)
        stream = self._streams.get(handle)
        if stream is None:
            stream = self._streams[handle] = driver.CUstream(handle)
        return stream

    def module(self, path: Path, macros: tuple[tuple[str, int], ...]) -> GpuModule:
        key = (path, macros)
        module = self._modules.get(key)
        if module is None:
            module = GpuModule(self, compile_kernels(path, dict(macros), self.architecture))
            self._modules[key] = module
        return module


class GpuModule:
    """Loaded machine code; a library of the driver, valid in every context."""

    def __init__(self, gpu: Gpu, cubin: bytes) -> None:
        self._gpu = gpu
        self._code = importlib.import_module("cuda.core").ObjectCode.from_cubin(cubin)
        self._kernels: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._allowed: dict[str, int] = {}  # bytes of shared memory; only ever more, since bound launches stay
        self._resident: dict[tuple[str, int, int], int] = {}

    def _kernel(self, name: str) -> Any:
        if name not in self._kernels:
            self._kernels[name] = self._code.get_kernel(name)
        return self._kernels[name]

    def _function(self, name: str, shared_bytes: int) -> Any:
        """The launch handle in this device's context, the thread's; allowed `shared_bytes` of shared memory."""
        driver = _driver()
        function = self._functions.get(name)
        if function is None:
            # Launched as it is, a kernel is looked up in its context by the driver every time.
            function = _check(driver.cuKernelGetFunction(driver.CUkernel(int(self._kernel(name).handle))))
            self._functions[name] = function
        if shared_bytes > self._allowed.get(name, _DEFAULT_SHARED_BYTES):
            handle = driver.CUkernel(int(self._kernel(name).handle))
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _check(driver.cuKernelSetAttribute(attribute, shared_bytes, handle, driver.CUdevice(self._gpu.index)))
            _check(driver.cuFuncSetAttribute(function, attribute, shared_bytes))
            self._allowed[name] = shared_bytes
        return function

    def launch(
        self, stream: Any, kernel: str, blocks: int, threads: int, shared_bytes: int, parameters: ctypes.Structure
    ) -> None:
        function = self._function(kernel, shared_bytes)
        pointer = ctypes.c_void_p(ctypes.addressof(parameters))
        array = ctypes.addressof(pointer)
        _check(_driver().cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, array, 0))

    def bind(
        self,
        kernel: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        parameter_bytes: int,  # noqa: ARG002
    ) -> Launch:
        function, queue, success = self._function(kernel, shared_bytes), _driver().cuLaunchKernel, _success()

        def launch(stream: Any, parameters: int) -> None:
            result = queue(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, parameters, 0)
            if result[0] is not success:
                _check(result)

        return launch

    def resident_blocks(self, kernel: str, threads: int, shared_bytes: int) -> int:
        key = (kernel, threads, shared_bytes)
        if key not in self._resident:
            with self._gpu.active():
                self._function(kernel, shared_bytes)
                occupancy = self._kernel(kernel).occupancy
                per_multiprocessor = occupancy.max_active_blocks_per_multiprocessor(threads, shared_bytes)
            self._resident[key] = max(1, int(per_multiprocessor)) * self._gpu.multiprocessors
        return self._resident[key]


def _raw_stream(index: int) -> int:
    """The handle of PyTorch's current stream."""
    return torch.cuda.current_stream(index).cuda_stream


def _empty_strided(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory on the current device."""
    return torch.empty_strided(shape, strides, dtype=dtype, device="cuda")


# What PyTorch's own generated code calls: a number, and no object around it; memory, and no dispatcher on the way.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", _raw_stream)
_current_device = getattr(torch._C, "_cuda_getDevice", torch.cuda.current_device)
_empty_strided = getattr(
    getattr(getattr(torch._C, "_dynamo", None), "guards", None), "_empty_strided_cuda", _empty_strided
)


@functools.cache
def _driver() -> Any:
    return importlib.import_module("cuda.bindings.driver")


@functools.cache
def _success() -> Any:
    return _driver().CUresult.CUDA_SUCCESS


def _check(result: tuple[Any, ...]) -> Any:
    """The value of a driver call, or an error that names what failed."""
    status = result[0]
    if status != 0:
        _, name = _driver().cuGetErrorName(status)
        raise RuntimeError(f"a CUDA call failed: {name.decode() if isinstance(name, bytes) else status}")
    return result[1] if len(result) > 1 else None

"""Launches as the driver sees them: a driver that writes down what it is asked for stands in for one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genossm_kernels._cuda import launch


class Driver:
    """What `launch` asks of cuda.bindings.driver: written down where the answer is no more than that all is well."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")

    def __init__(self) -> None:
        self.thread = threading.local()
        self.asked: list[tuple[Any, ...]] = []
        self.status = 0
        self.answers: dict[str, Any] = {
            "CUdevice": int,
            "CUkernel": int,
            "CUstream": lambda handle: ("stream", handle),
            "cuCtxGetCurrent": lambda: (0, getattr(self.thread, "context", 0)),
            "cuKernelGetFunction": lambda kernel: (0, ("function", kernel)),
            "cuGetErrorName": lambda status: (0, b"CUDA_ERROR_%d" % status),
        }

    def __getattr__(self, name: str) -> Any:
        def write_down(*asked: Any) -> tuple[int, ...]:
            self.asked.append((name, *asked))
            if name == "cuCtxSetCurrent":
                (self.thread.context,) = asked
            return (self.status, 77) if name == "cuDevicePrimaryCtxRetain" else (self.status,)

        return self.answers.get(name, write_down)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver()
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=4, shared_memory_per_block_optin=1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(launch, "_driver", lambda: found)
    monkeypatch.setattr(launch, "_raw_stream", lambda index: 1000 + index)
    launch._success.cache_clear()
    yield found
    launch._success.cache_clear()


@pytest.mark.usefixtures("driver")
def test_a_call_runs_on_its_tensors_device_and_stream_and_the_device_before_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = [0]

    @contextlib.contextmanager
    def device(index: int) -> Iterator[None]:
        before, current[0] = current[0], index
        try:
            yield
        finally:
            current[0] = before

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(launch, "_current_device", lambda: current[0])

    def where(stream: Any, *arguments: Any) -> tuple[Any, ...]:
        if "fail" in arguments:
            raise ValueError("in the midst of a call")
        return stream, current[0], arguments

    first, second = launch.Gpu(0), launch.Gpu(1)
    assert first.run(where, "a", 2) == (("stream", 1000), 0, ("a", 2))
    assert second.run(where) == (("stream", 1001), 1, ())
    with pytest.raises(ValueError, match="in the midst"):
        second.run(where, "fail")
    assert current == [0]


def test_a_thread_without_a_context_gets_the_device_s_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_current_device", lambda: 0)
    gpu = launch.Gpu(0)

    def work() -> None:
        for _ in range(3):
            gpu.run(lambda stream: stream)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    bound = [("cuDevicePrimaryCtxRetain", 0), ("cuCtxSetCurrent", 77), ("cuCtxSetCurrent", 77)]
    assert driver.asked == bound
    driver.thread.context = 5  # this thread has one
    gpu.run(lambda stream: stream)
    assert driver.asked == bound


def test_a_bound_launch_asks_for_what_was_bound_and_a_failure_has_a_name(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = SimpleNamespace(get_kernel=lambda name: SimpleNamespace(handle=len(name)))
    core = SimpleNamespace(ObjectCode=SimpleNamespace(from_cubin=lambda _: code))
    monkeypatch.setattr(launch.importlib, "import_module", lambda _: core)
    module = launch.GpuModule(launch.Gpu(3), b"")
    small, large = module.bind("four", 10, 128, 0, 8), module.bind("kernel", 7, 64, 100_000, 8)
    assert driver.asked == [
        ("cuKernelSetAttribute", "shared", 100_000, 6, 3),
        ("cuFuncSetAttribute", ("function", 6), "shared", 100_000),
    ]
    driver.asked.clear()
    module.bind("kernel", 7, 64, 90_000, 8)  # takes nothing from the launch bound before
    small("stream", 4321)
    large("other", 1234)
    assert driver.asked == [
        ("cuLaunchKernel", ("function", 4), 10, 1, 1, 128, 1, 1, 0, "stream", 4321, 0),
        ("cuLaunchKernel", ("function", 6), 7, 1, 1, 64, 1, 1, 100_000, "other", 1234, 0),
    ]
    driver.status = 700
    with pytest.raises(RuntimeError, match="CUDA_ERROR_700"):
        small("stream", 4321)

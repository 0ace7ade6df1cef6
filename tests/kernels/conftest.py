"""What the kernels' tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
import torch

from genossm_kernels import dispatch, kinds
from genossm_kernels._cuda import emulation, launch
from genossm_kernels.causal_conv1d import cuda as conv_backend
from genossm_kernels.selective_scan import cuda as scan_backend
from genossm_kernels.selective_scan import cuda_plan, cuda_turns

ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Call(Protocol):
    """One call of an operator that returns an output and a final state."""

    @property
    def dtype(self) -> torch.dtype: ...

    def tensors(self) -> dict[str, torch.Tensor | None]:
        """The inputs, the same ones every time."""
        ...

    def run(self, backend: str, tensors: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]: ...


@pytest.fixture(autouse=True)
def choices() -> Iterator[None]:
    """A back end or a plan chosen under a test's pretences is forgotten with them."""

    def forget() -> None:
        dispatch.choose_backend.cache_clear()
        cuda_plan.plan_for.cache_clear()
        kinds.forget_all()

    forget()
    yield
    forget()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer starts as NaN: whatever a kernel reads or returns without having written it shows."""
    for module, name in ((torch, "empty"), (torch, "empty_like"), (launch, "_empty_strided")):
        monkeypatch.setattr(module, name, poisoning(getattr(module, name)))


def poisoning(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = make(*args, **kwargs)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    return made


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever number of threads a test sets, the next test does not inherit it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> emulation.Emulator:
    return emulation.Emulator(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=[pytest.mark.gpu, needs_gpu])])
def device(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    emulator: emulation.Emulator,
    poisoned: None,  # noqa: ARG001
) -> torch.device:
    """Where the kernels run, into buffers that start as NaN."""
    if request.param == "gpu":
        return torch.device("cuda")
    for backend in (scan_backend, conv_backend):
        monkeypatch.setattr(backend, "launcher_for", lambda _: emulator)
        monkeypatch.setattr(backend, "unavailable_reason", lambda _: None)
    return torch.device("cpu")


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[cuda_turns.Turns], list[bool]]:
    """Makes forward scans one launch whose warps take such turns; gives a list of what was planned: whether of both
    directions."""

    def force(turns: cuda_turns.Turns) -> list[bool]:
        planned: list[bool] = []

        def chain(_: Any, shape: cuda_plan.Shape, padded_state: int, runs: int, __: Any) -> cuda_turns.Chain:
            planned.append(shape.both)
            ways = (1 + shape.both) * shape.batch * runs
            sizes = (shape.dtype.itemsize, padded_state, ways, shape.channels // runs)
            found = cuda_turns.chain_of(turns, *sizes)
            assert found.shared_bytes + found.adding_bytes <= 227 * 1024, "no GPU has that much for a block"
            return found

        monkeypatch.setattr(cuda_plan, "_chain", chain)
        return planned

    return force


@pytest.fixture
def as_accurate(device: torch.device) -> Callable[..., None]:
    """Asserts that the kernels give what the definition in float64 does, as accurately as the definition in float."""

    def check(call: Call, *, gradients: bool = True) -> None:
        cpu = torch.device("cpu")
        exact = results_of(call, "reference", cpu, torch.float64, gradients=gradients)
        plain = results_of(call, "reference", cpu, torch.float32, gradients=gradients)
        assert_as_accurate(results_of(call, "cuda", device, None, gradients=gradients), plain, exact, call.dtype)

    return check


def results_of(
    call: Call, backend: str, device: torch.device, dtype: torch.dtype | None, *, gradients: bool
) -> dict[str, torch.Tensor]:
    """Both outputs and the gradient of every input, on the CPU, for fixed random output gradients."""
    inputs = {
        name: None if tensor is None else tensor.to(device, dtype or tensor.dtype).requires_grad_(gradients)
        for name, tensor in call.tensors().items()
    }
    with torch.set_grad_enabled(gradients):
        outputs = call.run(backend, inputs)
    results = {"y": outputs[0], "final_state": outputs[1]}
    if gradients:
        g = torch.Generator().manual_seed(2)
        # Rounded to what the kernels are given, so that all compute the same function.
        weights = [torch.randn(out.shape, generator=g).to(call.dtype).to(out.dtype).to(device) for out in outputs]
        kept = [(out, weight) for out, weight in zip(outputs, weights) if out.numel() and out.requires_grad]
        torch.autograd.backward([out for out, _ in kept], [weight for _, weight in kept])
    results |= {name: tensor.grad for name, tensor in inputs.items() if tensor is not None and tensor.grad is not None}
    return {name: tensor.detach().cpu().double() for name, tensor in results.items()}


def assert_as_accurate(
    fused: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """At most twice the error of the plain float path, and the rounding of a result in the input's type."""
    assert fused.keys() == exact.keys()
    for name, expected in exact.items():
        scale = expected.norm()
        allowed = 2 * (plain[name] - expected).norm() + 2 * ROUNDING[dtype] * scale
        error = (fused[name] - expected).norm()
        assert error <= allowed, f"{name}: error {error / scale:.2e}, allowed {allowed / scale:.2e}"

"""What a call of `add_norm` promises besides accuracy: bits, errors, operators, gradients where they meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from genossm_kernels import BackendUnavailableError, KernelError, ShapeError, add_norm
from genossm_kernels.add_norm import cuda
from genossm_kernels.add_norm.contract import NormCall
from genossm_kernels.testing import norm_inputs, norm_results

FLOAT, BFLOAT, HALF, DOUBLE = torch.float32, torch.bfloat16, torch.float16, torch.float64
CPU = torch.device("cpu")


def floats(**options: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in norm_inputs(**options).items()}


@pytest.mark.parametrize("dtype", [FLOAT, BFLOAT])
def test_on_a_cpu_the_bits_are_those_of_pytorch_s_norms(dtype: torch.dtype) -> None:
    inputs = floats(bias=True)
    x, stream, weight, bias = (inputs[name] for name in ("x", "residual", "weight", "bias"))
    total = stream + x.bfloat16().float()
    found = add_norm(x.bfloat16(), stream, weight, dtype=dtype)
    assert torch.equal(found[1], total)
    assert torch.equal(found[0], F.rms_norm(total, weight.shape, weight, 1e-5).to(dtype))
    found = add_norm(None, stream, weight, bias, kind="layer", eps=0.1, dtype=dtype)
    assert found[1] is stream
    assert torch.equal(found[0], F.layer_norm(stream, weight.shape, weight, bias, 0.1).to(dtype))


@pytest.mark.usefixtures("emulated")
def test_the_stream_that_goes_on_is_on_the_same_memory_and_its_gradient_is_added_in_the_kernel() -> None:
    inputs = floats(x=False)
    leaf = inputs["residual"].requires_grad_()
    stream = leaf * 1
    y, onward = add_norm(None, stream, inputs["weight"], backend="cuda")
    assert onward.data_ptr() == stream.data_ptr()
    function = y.grad_fn
    assert function is not None
    assert onward.grad_fn is function
    # One gradient arrives at what made the stream: nothing is left to add.
    arrived = []
    stream.register_hook(lambda gradient: arrived.append(gradient.clone()))
    (y.sum() + 3 * onward.sum()).backward()
    (gradient,) = arrived
    alone = torch.autograd.grad(add_norm(None, leaf, inputs["weight"], backend="torch")[0].sum(), leaf)[0]
    torch.testing.assert_close(gradient, alone + 3)


@pytest.mark.usefixtures("emulated")
def test_rows_that_begin_anywhere_are_read_in_place_and_gaps_are_allowed() -> None:
    whole, weight = torch.randn(5, 4, 40), torch.randn(24)
    for rows in (whole[..., 1:25], whole[:, ::2, 4:28], whole.transpose(0, 1)[..., 16:]):
        for one, other in zip(
            add_norm(rows, rows, weight, backend="cuda"), add_norm(rows.clone(), rows.clone(), weight, backend="cuda")
        ):
            assert torch.equal(one, other)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("backend", ["cuda", "auto"])
def test_no_rows_at_all(backend: str) -> None:
    found = norm_results(floats(rows=(0,)), dtype=BFLOAT, backend=backend)
    assert found["y"].shape == found["stream"].shape == (0, 24)
    assert not found["grad weight"].any()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("x_dtype", [None, FLOAT, BFLOAT])
def test_opcheck(x_dtype: torch.dtype | None) -> None:
    inputs = floats(bias=True, x=x_dtype is not None)
    if x_dtype is not None:
        inputs["x"] = inputs["x"].to(x_dtype)
    tensors = [inputs.get(name) for name in ("x", "residual", "weight", "bias")]
    for gradients in (True, False):
        leaves = [None if tensor is None else tensor.clone().requires_grad_(gradients) for tensor in tensors]
        torch.library.opcheck(torch.ops.genossm.add_norm, (*leaves, True, 1e-5, BFLOAT, "cuda"))


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("x", [True, False])
def test_a_dispatch_mode_sees_the_operator_and_the_bits_are_the_same(x: bool) -> None:
    inputs = floats(x=x)
    expected = norm_results(inputs, dtype=BFLOAT, backend="cuda")
    with Seen() as mode:
        found = norm_results(inputs, dtype=BFLOAT, backend="cuda")
    assert {name for name in mode.names if name.startswith("genossm")} == {
        "genossm::add_norm",
        "genossm::add_norm_backward",
    }
    for name in ("y", "stream", "grad weight"):
        assert torch.equal(found[name], expected[name])
    # Without x the operator gives out no stream, and autograd adds what comes back to it.
    torch.testing.assert_close(found["grad residual"], expected["grad residual"], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("emulated")
def test_an_imagined_call_has_the_shapes_of_a_real_one() -> None:
    inputs = floats()
    with FakeTensorMode() as mode:
        y, stream = add_norm(**{name: mode.from_tensor(t) for name, t in inputs.items()}, dtype=HALF, backend="cuda")
    assert (y.shape, y.dtype, stream.shape, stream.dtype) == ((2, 33, 24), HALF, (2, 33, 24), FLOAT)


def test_a_compiler_gets_pytorch_s_operators() -> None:
    torch._dynamo.reset()
    inputs = floats()
    compiled = torch.compile(add_norm, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(**inputs), add_norm(**inputs)):
        assert torch.equal(one, other)


def test_the_output_has_the_dtype_asked_for_or_that_of_autocast_or_of_the_weight() -> None:
    inputs = floats(x=False)
    stream, weight = inputs["residual"], inputs["weight"]
    assert add_norm(None, stream, weight.bfloat16())[0].dtype == BFLOAT
    with torch.autocast("cpu", BFLOAT):
        assert add_norm(None, stream, weight)[0].dtype == BFLOAT
        assert add_norm(None, stream, weight, dtype=FLOAT)[0].dtype == FLOAT
    assert add_norm(None, stream.double(), weight)[1].dtype == DOUBLE


@pytest.mark.usefixtures("emulated")
def test_second_derivatives_are_refused_by_the_kernels() -> None:
    inputs = floats(x=False)
    stream = inputs["residual"].requires_grad_()
    y, _ = add_norm(None, stream, inputs["weight"], backend="cuda")
    (gradient,) = torch.autograd.grad(y.square().sum(), stream, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(3)}, r"weight is \(3,\); wanted \(channels,\) = \(24,\)"),
        ({"bias": torch.ones(1, 24)}, r"bias is \(1, 24\)"),
        ({"x": torch.ones(33, 24)}, r"x is \(33, 24\); wanted the shape of the residual"),
        ({"residual": torch.ones(())}, r"at least one channel"),
        ({"kind": "batch"}, r"kind is 'batch'; wanted 'rms' or 'layer'"),
        ({"x": torch.ones(2, 33, 24, dtype=torch.int32)}, r"x is torch.int32; wanted float32"),
        ({"weight": torch.ones(24, device="meta")}, r"weight is on meta"),
    ],
)
def test_what_cannot_be_is_told(change: dict[str, Any], message: str) -> None:
    wanted = ShapeError if "(" in message or "channel" in message else KernelError
    with pytest.raises(wanted, match=message):
        add_norm(**(floats() | change))


def test_why_the_kernels_cannot_run_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "unavailable_reason", lambda _: None)
    for call, reason in {
        NormCall(CPU, (DOUBLE, FLOAT), 24): "not torch.float64",
        NormCall(CPU, (BFLOAT, HALF), 24): "not both at once",
        NormCall(CPU, (FLOAT, FLOAT), 16385): "up to 16384 channels",
    }.items():
        assert reason in str(cuda.unavailable(call))
    assert cuda.unavailable(NormCall(CPU, (FLOAT, BFLOAT, BFLOAT), 16384)) is None
    with pytest.raises(BackendUnavailableError, match=r"'cuda' cannot run this call.*float64"):
        add_norm(None, torch.ones(3, 4).double(), torch.ones(4), backend="cuda")

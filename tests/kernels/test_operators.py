"""The custom operators: what compilers, dispatch modes and autocast make of a call, on the CPU back end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from genossm_kernels import KernelError, causal_conv1d, selective_scan
from genossm_kernels.selective_scan import cpu
from genossm_kernels.selective_scan.autograd import DIFFERENTIABLE
from genossm_kernels.selective_scan.contract import ScanArguments
from genossm_kernels.testing import cast, conv_inputs, scan_inputs

SCAN = torch.ops.genossm.selective_scan
CONV = torch.ops.genossm.causal_conv1d
CALLS: dict[str, dict[str, Any]] = {
    "everything": {"batch": 2, "length": 70, "channels": 24, "groups": 2, "packed": True, "reverse": (True, False)},
    "little": {"length": 9, "channels": 5, "states": 3, "initial_state": False, "without": ("D", "z", "delta_bias")},
}


def scan_tensors(name: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], tuple[bool, ...]]:
    sizes = dict(CALLS[name])
    reverse, without = sizes.pop("reverse", (True,)), sizes.pop("without", ())
    inputs = cast(scan_inputs(**sizes), dtype)
    return {key: None if key in without else inputs.get(key) for key in (*DIFFERENTIABLE, "seq_idx")}, reverse


def leaf(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return tensor.clone().requires_grad_() if tensor is not None and tensor.is_floating_point() else tensor


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_of_the_scan(name: str, dtype: torch.dtype, keep: bool) -> None:
    tensors, reverse = scan_tensors(name, dtype)
    for prepare in (leaf, lambda tensor: tensor):
        arguments = (*map(prepare, tensors.values()), True, list(reverse), "cpu", keep)
        torch.library.opcheck(SCAN, arguments)


@pytest.mark.parametrize("without", [(), ("bias", "initial_state", "seq_idx")])
def test_opcheck_of_the_convolution(without: tuple[str, ...]) -> None:
    inputs = cast(conv_inputs(batch=2, packed=True), torch.bfloat16)
    inputs["initial_state"] = inputs["initial_state"].bfloat16()
    names = ("x", "weight", "bias", "initial_state", "seq_idx")
    tensors = [None if name in without else inputs[name] for name in names]
    for prepare in (leaf, lambda tensor: tensor):
        torch.library.opcheck(CONV, (*map(prepare, tensors), not without, [True, False], "cpu"))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("keep", [True, False])
def test_operator_gives_the_bits_of_the_plain_call(name: str, keep: bool) -> None:
    """With gradients; where nothing is kept, backward makes it anew."""
    tensors, reverse = scan_tensors(name)
    found = []
    for call in (
        lambda t: selective_scan(**t, reverse=reverse, return_final_state=True, backend="cpu"),
        lambda t: SCAN(*t.values(), True, list(reverse), "cpu", keep)[:2],
    ):
        leaves = {key: leaf(tensor) for key, tensor in tensors.items()}
        y, state = call(leaves)
        wanted = [tensor for tensor in leaves.values() if tensor is not None and tensor.requires_grad]
        found.append((y, state, *torch.autograd.grad(y.square().sum() + state.sum(), wanted)))
    for plain, operator in zip(*found, strict=True):
        assert torch.equal(plain, operator)


def test_the_operators_convert_nothing_and_say_so() -> None:
    tensors, reverse = scan_tensors("everything", torch.bfloat16)
    for name in ("A", "z", "initial_state"):
        wrong = tensors | {name: tensors[name].double()}
        with pytest.raises(KernelError, match=f"{name} is torch.float64; wanted"):
            SCAN(*wrong.values(), True, list(reverse), "cpu", True)
    x = torch.randn(1, 5, 8).bfloat16()
    with pytest.raises(KernelError, match=r"initial_state is torch.float32; wanted torch.bfloat16"):
        CONV(x, torch.randn(8, 4), None, torch.randn(1, 3, 8), None, True, [True], "cpu")


@pytest.mark.parametrize("name", CALLS)
def test_what_is_kept_has_the_foretold_shape(name: str) -> None:
    tensors, reverse = scan_tensors(name)
    index = tensors.pop("seq_idx")
    state = tensors.pop("initial_state")
    arguments = ScanArguments(*tensors.values(), True, reverse, state, index)
    kept = cpu.forward(arguments, need_backward=True)[2]
    assert kept is not None
    assert tuple(kept.shape) == cpu.kept_shape(arguments)


def both(
    x: torch.Tensor, weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, *, backend: str = "cpu"
) -> torch.Tensor:
    u = causal_conv1d(x, weight, backend=backend)
    return selective_scan(u, x, A, B, B, z=x, reverse=True, backend=backend)


def both_inputs(channels: int = 8, length: int = 20) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=g) for shape in ((2, length, channels), (channels, 4), (channels, 4))]
    return [*tensors[:2], -tensors[2].abs(), torch.randn((2, length, 1, 4), generator=g)]


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_compiled_without_a_break_in_the_graph(backend: str) -> None:
    torch._dynamo.reset()
    inputs = [tensor.requires_grad_() for tensor in both_inputs(length=6)]
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    expected, found = both(*inputs, backend=backend), compiled(*inputs, backend=backend)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape)
    for plain, traced in zip(
        torch.autograd.grad(expected, inputs, weight), torch.autograd.grad(found, inputs, weight), strict=True
    ):
        torch.testing.assert_close(traced, plain)


def test_one_graph_serves_every_length() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (33, 7, 64):
            inputs = both_inputs(length=length)
            assert torch.equal(compiled(*inputs), both(*inputs))


def test_sizes_first_met_under_a_tracer_work_afterwards() -> None:
    """Nothing that tracing remembers is made of imagined tensors."""
    inputs = both_inputs(channels=23)
    with FakeTensorMode() as mode:
        fake = both(*map(mode.from_tensor, inputs))
    assert fake.shape == (2, 20, 23)
    assert torch.equal(both(*inputs), both(*inputs))


def test_a_dispatch_mode_sees_the_operators() -> None:
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    inputs = both_inputs()
    with Seen():
        watched = both(*inputs)
    assert [name for name in names if name.startswith("genossm")] == [
        "genossm::causal_conv1d",
        "genossm::selective_scan",
    ]
    assert torch.equal(watched, both(*inputs))


def test_autocast_narrows_activations_and_leaves_states_and_parameters() -> None:
    tensors, reverse = scan_tensors("everything")
    y, state = selective_scan(
        **cast(scan_inputs_of(tensors), torch.bfloat16),
        seq_idx=tensors["seq_idx"],
        reverse=reverse,
        return_final_state=True,
    )
    x, weight = torch.randn(1, 9, 8), torch.randn(8, 4)
    tail = torch.randn(1, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, narrow_state = selective_scan(**tensors, reverse=reverse, return_final_state=True)
        convolved, last = causal_conv1d(x, weight, initial_state=tail, return_final_state=True)
        wide = causal_conv1d(x.double(), weight.double())
    assert (narrow.dtype, narrow_state.dtype, convolved.dtype, last.dtype, wide.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
        torch.bfloat16,
        torch.float64,
    )
    assert torch.equal(narrow, y)
    assert torch.equal(narrow_state, state)
    assert torch.equal(convolved, causal_conv1d(x.bfloat16(), weight, initial_state=tail.bfloat16()))


def scan_inputs_of(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None and name != "seq_idx"}


def test_gradients_under_autocast_have_the_dtype_of_what_was_given() -> None:
    tensors, reverse = scan_tensors("everything")
    leaves = {name: leaf(tensor) for name, tensor in tensors.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(**leaves, reverse=reverse)
    y.float().sum().backward()
    for name in DIFFERENTIABLE:
        gradient = leaves[name].grad
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name


def test_the_backward_operator_has_no_gradient_and_says_so() -> None:
    inputs = [tensor.requires_grad_() for tensor in both_inputs()]
    compiled = SCAN(inputs[0], inputs[0], inputs[2], inputs[3], inputs[3], *[None] * 5, True, [True], "cpu", True)[0]
    (gradient,) = torch.autograd.grad(compiled.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(KernelError, match=r"Second derivatives .* 'torch'"):
        gradient.sum().backward()


def test_a_second_copy_of_the_package_uses_the_first_one_s_operators() -> None:
    code = (
        "import importlib, sys, genossm_kernels, torch\n"
        "first = torch.ops.genossm.selective_scan.default\n"
        "for name in [name for name in sys.modules if name.startswith('genossm_kernels')]: del sys.modules[name]\n"
        "import genossm_kernels.selective_scan\n"
        "assert torch.ops.genossm.selective_scan.default is first\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

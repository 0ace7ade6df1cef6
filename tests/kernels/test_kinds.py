"""A call of a kind seen before takes short cuts: none of them may change what a call says, gives or leaves alone."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from genossm_kernels import KernelError, ShapeError, causal_conv1d, kinds, selective_scan
from genossm_kernels._cuda.program import Layout, Program
from genossm_kernels.testing import conv_inputs, scan_inputs


def scan(**changes: Any) -> torch.Tensor:
    inputs: dict[str, Any] = {**scan_inputs(batch=2, length=5, channels=6, states=3), **changes}
    return selective_scan(**inputs, backend="cpu")


def convolve(**changes: Any) -> torch.Tensor:
    inputs: dict[str, Any] = {**conv_inputs(batch=2, length=5, channels=6), **changes}
    return causal_conv1d(**inputs, backend="cpu")


def scan_operator(**changes: Any) -> torch.Tensor:
    inputs: dict[str, Any] = {**scan_inputs(batch=2, length=5, channels=6, states=3), "seq_idx": None, **changes}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "seq_idx")
    return torch.ops.genossm.selective_scan(*(inputs[name] for name in names), True, [False], "cpu", False)[0]


def convolution_operator(**changes: Any) -> torch.Tensor:
    inputs: dict[str, Any] = {**conv_inputs(batch=2, length=5, channels=6), "seq_idx": None, **changes}
    names = ("x", "weight", "bias", "initial_state", "seq_idx")
    return torch.ops.genossm.causal_conv1d(*(inputs[name] for name in names), True, [False], "cpu")[0]


FAULTS: dict[str, tuple[Callable[..., torch.Tensor], dict[str, Any], type[Exception], str]] = {
    "dtype": (scan, {"z": torch.zeros(2, 5, 6)}, KernelError, "z is torch.float32"),
    "device": (scan, {"D": torch.zeros(6, dtype=torch.float64, device="meta")}, KernelError, "D is on meta"),
    "shape": (scan, {"A": torch.zeros(6, 4, dtype=torch.float64)}, ShapeError, r"A is|B is"),
    "absent groups": (scan, {"C": torch.zeros(2, 5, 3, dtype=torch.float64)}, ShapeError, "C is"),
    "numbers for bools": (scan, {"reverse": (0, 0)}, KernelError, r"reverse is \(0, 0\)"),
    "blocks": (scan, {"reverse": (True, False, True, False)}, ShapeError, "reverse has 4 entries"),
    "index": (scan, {"seq_idx": torch.zeros(2, 5)}, KernelError, "seq_idx is torch.float32"),
    "activation": (convolve, {"activation": "relu"}, KernelError, "activation is 'relu'"),
    "weight": (convolve, {"weight": torch.zeros(6, 1, 4)}, ShapeError, "weight is"),
    "operator": (scan_operator, {"A": torch.zeros(6, 3)}, KernelError, "A is torch.float32; wanted torch.float64"),
    "taps of the operator": (
        convolution_operator,
        {"weight": torch.zeros(6, 4)},
        KernelError,
        "weight is torch.float32",
    ),
    "tail": (convolve, {"initial_state": torch.zeros(2, 4, 6)}, ShapeError, "initial_state is"),
}


def test_operators_read_rows_with_gaps_after_rows_without() -> None:
    plain = scan_inputs(batch=2, length=5, channels=6, states=3)
    gaps = {name: torch.stack([tensor, tensor + 1], -1)[..., 0] for name, tensor in plain.items()}
    for inputs in (plain, gaps, plain, gaps):
        assert torch.equal(scan_operator(**inputs), scan())


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_after_a_good_call_and_after_itself(name: str) -> None:
    operator, fault, error, message = FAULTS[name]
    operator()
    for _ in range(2):
        with pytest.raises(error, match=message):
            operator(**fault)
    operator()


def test_tensors_that_lie_otherwise_give_the_same_bits_before_and_after() -> None:
    """Contiguous, with gaps, turned around, of another dtype than is computed in: kinds of their own."""
    plain = scan_inputs(batch=2, length=5, channels=6, states=3)
    gaps = {name: torch.stack([tensor, tensor + 1], -1)[..., 0] for name, tensor in plain.items()}
    turned = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in plain.items()}
    narrow = plain | {name: plain[name].float() for name in ("A", "D", "delta_bias", "initial_state")}
    first = scan()
    for _ in range(2):
        for inputs in (gaps, turned, narrow, plain):
            assert torch.equal(scan(**inputs), first)
    assert not torch.equal(scan(reverse=True), first)
    assert torch.equal(scan(reverse=(False, False)), first)


def test_kinds_are_told_apart_and_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_MOST_KINDS", 3)
    known = kinds.Kinds()
    found = {key: known.of(key) for key in ("a", "b", "a", "c")}
    assert len(set(found.values())) == 3
    assert known.of("a") is found["a"]
    assert known.of("b") is found["b"]
    known.of("d")
    assert known.of("b") is not found["b"]
    assert len(known._known) <= 3
    kinds.forget_all()
    assert not known._known


class Parameters(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "second", "third", "fourth")),
        ("size", ctypes.c_int64),
    )


def seen(array: int) -> tuple[int | None, ...]:
    """What a kernel would be given."""
    start = ctypes.c_void_p.from_address(array).value
    assert start is not None
    found = Parameters.from_address(start)
    return found.first, found.second, found.third, found.fourth, found.size


def test_a_program_writes_its_addresses_and_nothing_else() -> None:
    found = []
    program = Program(
        [lambda stream, array: found.append((stream, *seen(array)))] * 2, Parameters(size=7), ("first", "third")
    )
    program.run("stream", 11, 13)
    program.run(None, 21, 0)
    assert found == [("stream", 11, None, 13, None, 7)] * 2 + [(None, 21, None, None, None, 7)] * 2


@pytest.mark.parametrize("order", [("third", "first"), ("first", "size")])
def test_a_program_refuses_other_places_for_addresses(order: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        Program([], Parameters(size=7), order)


def test_calls_within_calls_and_in_threads_do_not_share_parameters() -> None:
    wrong: list[Any] = []
    barrier = threading.Barrier(4)

    def launch(stream: Any, array: int) -> None:
        depth, number = stream
        if depth:  # as a finaliser that runs in between
            program.run((depth - 1, number + 1), number + 1, 0)
        if seen(array)[0] != number:
            wrong.append((stream, seen(array)))

    program = Program([launch, launch], Parameters(size=7), ("first", "second"))

    def work(thread: int) -> None:
        barrier.wait()
        for k in range(300):
            number = 1 + 10 * (1000 * thread + k)
            program.run((2, number), number, 0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (2, 0, 4), (1, 1, 1, 9)])
def test_layouts_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    layout, made = Layout.of(torch.Size(shape), torch.bfloat16), torch.empty(shape)
    assert (layout.shape, layout.strides) == (tuple(made.shape), made.stride())
    assert type(layout.shape) is tuple


@pytest.mark.parametrize("operator", ["scan", "convolution"])
def test_second_derivatives_and_functorch_are_refused_aloud(operator: str) -> None:
    def call(first: torch.Tensor) -> torch.Tensor:
        return (scan(u=first) if operator == "scan" else convolve(x=first)).square().sum()

    inputs = (
        scan_inputs(batch=2, length=5, channels=6, states=3)
        if operator == "scan"
        else conv_inputs(batch=2, length=5, channels=6)
    )
    first = inputs["u" if operator == "scan" else "x"].requires_grad_()
    (gradient,) = torch.autograd.grad(call(first), first, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(call)(first.detach())

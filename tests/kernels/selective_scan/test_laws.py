"""What holds for every scan, whatever its numbers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genossm_kernels import selective_scan
from genossm_kernels.testing import cast, results, scan_inputs, scan_results

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "torch"])
ALONG_LENGTH = ("u", "delta", "B", "C", "z", "seq_idx")
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


def part(inputs: dict[str, Tensor], where: slice) -> dict[str, Tensor]:
    return {name: tensor[:, where] if name in ALONG_LENGTH else tensor for name, tensor in inputs.items()}


def flipped(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.flip(1) if name in ALONG_LENGTH else tensor for name, tensor in inputs.items()}


@BACKENDS
@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 89), max_size=4), reverse=st.booleans(), seed=st.integers(0, 99))
def test_split_anywhere_with_the_state_handed_on_equals_whole(
    backend: str, cuts: set[int], reverse: bool, seed: int
) -> None:
    """Outputs and every gradient, the initial state's included."""
    inputs = scan_inputs(length=90, channels=6, states=3, seed=seed)

    def pieces(*, initial_state: Tensor, return_final_state: bool, **rest: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        edges = [0, *sorted(cuts), 90]
        spans = [slice(a, b) for a, b in itertools.pairwise(edges)]
        outputs, state = [], initial_state
        for span in reversed(spans) if reverse else spans:
            y, state = selective_scan(
                **part(rest, span), initial_state=state, reverse=reverse, return_final_state=True, backend=backend
            )
            outputs.append(y)
        return torch.cat(outputs[::-1] if reverse else outputs, dim=1), state

    whole = scan_results(inputs, reverse=reverse, backend=backend)
    torch.testing.assert_close(results(pieces, inputs), whole, **CLOSE)


@BACKENDS
@settings(max_examples=10)
@given(length=st.integers(1, 70), packed=st.booleans(), seed=st.integers(0, 99))
def test_reverse_is_forward_on_flipped_inputs(backend: str, length: int, packed: bool, seed: int) -> None:
    inputs = scan_inputs(length=length, channels=5, states=3, packed=packed, seed=seed)

    def by_flipping(return_final_state: bool, **leaves: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        y, state = selective_scan(**flipped(leaves), return_final_state=True, backend=backend)
        return y.flip(1), state

    torch.testing.assert_close(
        scan_results(inputs, reverse=True, backend=backend), results(by_flipping, inputs), **CLOSE
    )


@BACKENDS
@pytest.mark.parametrize("reverse", [(False, True), (True, False, True)])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_tuple_runs_each_block_of_channels_its_own_way(backend: str, reverse: tuple[bool, ...], groups: int) -> None:
    inputs = scan_inputs(length=70, channels=36, states=3, groups=groups, packed=True)
    y, state = selective_scan(**inputs, reverse=reverse, return_final_state=True, backend=backend)
    size = 36 // len(reverse)
    for index, direction in enumerate(reverse):
        own_y, own_state = selective_scan(**inputs, reverse=direction, return_final_state=True, backend=backend)
        block = slice(index * size, (index + 1) * size)
        torch.testing.assert_close(y[..., block], own_y[..., block], **CLOSE)
        torch.testing.assert_close(state[:, block], own_state[:, block], **CLOSE)


@BACKENDS
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), reverse=st.booleans(), seed=st.integers(0, 99))
def test_packed_sequences_equal_separate_ones(backend: str, lengths: list[int], reverse: bool, seed: int) -> None:
    inputs = scan_inputs(length=sum(lengths), channels=5, states=3, initial_state=False, seed=seed)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None].int()

    def separate(return_final_state: bool, **leaves: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        spans, start = [], 0
        for length in lengths:
            spans.append(slice(start, start + length))
            start += length
        done = [
            selective_scan(**part(leaves, span), reverse=reverse, return_final_state=True, backend=backend)
            for span in spans
        ]
        return torch.cat([y for y, _ in done], dim=1), done[0 if reverse else -1][1]

    packed = scan_results(inputs | {"seq_idx": index}, reverse=reverse, backend=backend)
    torch.testing.assert_close(packed, results(separate, inputs), **CLOSE)


@BACKENDS
@settings(max_examples=10)
@given(position=st.integers(0, 79), reverse=st.booleans(), name=st.sampled_from(["u", "delta", "B", "C", "z"]))
def test_no_output_depends_on_a_later_input(backend: str, position: int, reverse: bool, name: str) -> None:
    inputs = scan_inputs(length=80, channels=4, states=3)
    before = selective_scan(**inputs, reverse=reverse, backend=backend)
    inputs[name][:, position] += 1.0
    after = selective_scan(**inputs, reverse=reverse, backend=backend)
    unseen = slice(position + 1, None) if reverse else slice(0, position)
    assert torch.equal(before[:, unseen], after[:, unseen])
    assert not torch.equal(before[:, position], after[:, position])


def test_an_infinity_stays_in_its_packed_sequence() -> None:
    inputs = scan_inputs(length=70, channels=20, states=3, initial_state=False)
    inputs["u"][:, 10] = float("inf")
    index = (torch.arange(70) >= 40).int()[None]
    results = scan_results(inputs | {"seq_idx": index}, backend="cpu")
    assert not results["y"][:, 10:40].isfinite().any()
    assert results["y"][:, 40:].isfinite().all()
    assert results["final_state"].isfinite().all()
    assert results["grad u"][:, 40:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [3, 50])
def test_slices_of_a_projection_are_read_where_they_lie(dtype: torch.dtype, length: int) -> None:
    """One buffer holds u, z, delta, B and C side by side, as linear layers leave them; padding is poison."""
    inputs = cast(scan_inputs(batch=2, length=length, channels=38, states=5, groups=2), dtype)
    widths = {"u": 38, "z": 38, "delta": 38, "B": 10, "C": 10}
    buffer = torch.full((2, length + 3, sum(widths.values()) + 11), float("nan"), dtype=dtype)
    sliced, start = dict(inputs), 2
    for name, width in widths.items():
        view = buffer[:, 1 : 1 + length, start : start + width]
        sliced[name] = view.unflatten(-1, (2, 5)) if name in "BC" else view
        sliced[name].copy_(inputs[name])
        start += width
    before = buffer.clone()
    found, expected = (scan_results(given, backend="cpu", reverse=True) for given in (sliced, inputs))
    assert torch.equal(buffer.nan_to_num(1234.0), before.nan_to_num(1234.0))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_any_layout_gives_the_same() -> None:
    """Transposed, expanded and strided inputs, and gradients that arrive expanded, are only slower."""
    inputs = scan_inputs(batch=2, length=40, channels=6, states=4)
    odd = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in inputs.items()}
    odd["z"] = inputs["z"] = inputs["z"][:1, :, :1].expand(2, 40, 6)
    grads = []
    for given_inputs in (inputs, odd):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in given_inputs.items()}
        y = selective_scan(**leaves, backend="cpu")
        y.sum().backward()  # an expanded gradient, stride 0
        grads.append([y.detach(), *(leaf.grad for leaf in leaves.values())])
    for left, right in zip(*grads, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("length", [1, 5, 70])
def test_inputs_are_left_alone(length: int) -> None:
    inputs = scan_inputs(batch=2, length=length, channels=20, packed=True)
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    scan_results(inputs, backend="cpu")
    scan_results(inputs, backend="cpu", gradients=False)
    for name, tensor in inputs.items():
        assert torch.equal(tensor, copies[name]), name


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_the_number_of_threads(batch: int) -> None:
    inputs = cast(scan_inputs(batch=batch, length=300, channels=200, groups=2, packed=True), torch.float32)
    found: list[dict[str, Any]] = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        found.append(scan_results(inputs, backend="cpu", reverse=(True, False)))
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name

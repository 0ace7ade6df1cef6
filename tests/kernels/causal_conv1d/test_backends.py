"""Fast paths against the definition, finite differences, float64; and what holds for every convolution."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genossm_kernels import causal_conv1d
from genossm_kernels.testing import cast, conv_inputs, conv_results, errors, excess, results

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "torch"])
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options, sequences shorter than the taps and blocks with ragged ends among them."""
    blocks = draw(st.sampled_from([1, 2, 3]))
    inputs = conv_inputs(
        batch=draw(st.integers(1, 2)),
        length=draw(st.sampled_from([1, 2, 3, 4, 5, 40])),
        channels=6 * draw(st.sampled_from([1, 3, 12])),
        width=draw(st.sampled_from([1, 2, 3, 4, 7])),
        initial_state=draw(st.booleans()),
        packed=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )
    if draw(st.booleans()):
        del inputs["bias"]
    directions = st.lists(st.booleans(), min_size=blocks, max_size=blocks).map(tuple)
    return inputs, {"reverse": draw(directions), "activation": draw(st.sampled_from(["silu", None]))}


@BACKENDS
@settings(max_examples=60)
@given(convolution=convolutions())
def test_every_result_is_the_definition_s(backend: str, convolution: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inputs, options = convolution
    truth = conv_results(inputs, backend="reference", **options)
    found = conv_results(inputs, backend=backend, **options)
    assert found.keys() == truth.keys()
    for name, error in errors(found, truth).items():
        assert error.largest < 1e-12, name


@pytest.mark.parametrize("changes", [(), (7, 8, 48, 96, 97, 150)])
@pytest.mark.parametrize("length", [1, 47, 48, 49, 200])
@pytest.mark.parametrize("width", [6, 16, 70])
def test_taps_and_sequences_longer_than_what_is_held_at_once(width: int, length: int, changes: tuple[int, ...]) -> None:
    inputs = conv_inputs(batch=2, length=length, channels=38, width=width, seed=width + length)
    if changes:
        inputs["seq_idx"] = torch.bucketize(torch.arange(length), torch.tensor(changes), right=True).int().expand(2, -1)
    for options in ({"reverse": (False, True)}, {"activation": None}):
        truth = conv_results(inputs, backend="torch", **options)
        found = conv_results(inputs, backend="cpu", **options)
        for name, error in errors(found, truth).items():
            assert error.largest < 1e-12, name


@BACKENDS
@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_of_one_sequence_reaches_another(backend: str, reverse: bool) -> None:
    """Not even what is no number, forward or backward."""
    inputs = conv_inputs(length=70, channels=5, width=9)
    inputs["seq_idx"] = (torch.arange(70) >= 60).int()[None]
    tail = slice(60, 70) if not reverse else slice(0, 60)
    other = slice(0, 60) if not reverse else slice(60, 70)
    plain = conv_results(inputs, backend=backend, reverse=reverse)
    x = inputs["x"].clone()
    x[:, other] = torch.inf
    spoilt = conv_results(inputs | {"x": x}, backend=backend, reverse=reverse)
    for name in ("y", "grad x"):
        assert torch.equal(spoilt[name][:, tail], plain[name][:, tail]), name
    assert torch.equal(spoilt["final_state"], plain["final_state"])


@BACKENDS
@pytest.mark.parametrize("reverse", [False, (True, False)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [2, 5])
def test_gradients_against_finite_differences(backend: str, reverse: Any, packed: bool, length: int) -> None:
    inputs = conv_inputs(batch=2, length=length, channels=4, packed=packed)
    index = inputs.pop("seq_idx", None)

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(inputs, tensors, strict=True))
        return causal_conv1d(**named, seq_idx=index, reverse=reverse, return_final_state=True, backend=backend)

    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs.values()])


@pytest.mark.usefixtures("poisoned")
@BACKENDS
@pytest.mark.parametrize("length", [1, 3, 203])
def test_float32_errs_at_most_twice_as_much_as_the_plain_loop(backend: str, length: int) -> None:
    batch = 2 if length > 100 else 24
    inputs = cast(conv_inputs(batch=batch, length=length, channels=40, packed=length == 203), torch.float32)
    truth = conv_results(wide(inputs), backend="reference")
    plain = conv_results(inputs, backend="reference")
    assert not excess(conv_results(inputs, backend=backend), plain, truth, rounding=2**-23)


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_add_only_the_rounding_of_their_outputs(backend: str, dtype: torch.dtype) -> None:
    inputs = cast(conv_inputs(length=100, channels=40), dtype)
    inputs["initial_state"] = inputs["initial_state"].to(dtype).float()
    truth = conv_results(wide(inputs), backend="reference")
    plain = conv_results(cast(inputs, torch.float32), backend="reference")
    assert not excess(conv_results(inputs, backend=backend), plain, truth, rounding=torch.finfo(dtype).eps)


@BACKENDS
@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, 19), max_size=6), reverse=st.booleans(), seed=st.integers(0, 99))
def test_split_anywhere_with_the_state_handed_on_equals_whole(
    backend: str, cuts: set[int], reverse: bool, seed: int
) -> None:
    inputs = conv_inputs(length=20, channels=6, seed=seed)

    def pieces(x: Tensor, initial_state: Tensor, return_final_state: bool, **rest: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        spans = [slice(a, b) for a, b in itertools.pairwise([0, *sorted(cuts), 20])]
        outputs, state = [], initial_state
        for span in reversed(spans) if reverse else spans:
            y, state = causal_conv1d(
                x[:, span], initial_state=state, reverse=reverse, return_final_state=True, backend=backend, **rest
            )
            outputs.append(y)
        return torch.cat(outputs[::-1] if reverse else outputs, dim=1), state

    whole = conv_results(inputs, reverse=reverse, backend=backend)
    torch.testing.assert_close(results(pieces, inputs), whole, **CLOSE)


@BACKENDS
@settings(max_examples=15)
@given(length=st.integers(1, 30), packed=st.booleans(), seed=st.integers(0, 99))
def test_reverse_is_forward_on_flipped_inputs(backend: str, length: int, packed: bool, seed: int) -> None:
    inputs = conv_inputs(length=length, channels=5, packed=packed, seed=seed)

    def by_flipping(x: Tensor, return_final_state: bool, **rest: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        if "seq_idx" in rest:
            rest["seq_idx"] = rest["seq_idx"].flip(1)
        y, state = causal_conv1d(x.flip(1), return_final_state=True, backend=backend, **rest)
        return y.flip(1), state

    torch.testing.assert_close(
        conv_results(inputs, reverse=True, backend=backend), results(by_flipping, inputs), **CLOSE
    )


@BACKENDS
def test_a_tuple_runs_each_block_of_channels_its_own_way(backend: str) -> None:
    inputs = conv_inputs(length=30, channels=36, packed=True)
    y = causal_conv1d(**inputs, reverse=(True, False, True), backend=backend)
    for index, direction in enumerate((True, False, True)):
        block = slice(12 * index, 12 * (index + 1))
        own = causal_conv1d(**inputs, reverse=direction, backend=backend)
        torch.testing.assert_close(y[..., block], own[..., block], **CLOSE)


@BACKENDS
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), reverse=st.booleans(), seed=st.integers(0, 99))
def test_packed_sequences_equal_separate_ones(backend: str, lengths: list[int], reverse: bool, seed: int) -> None:
    inputs = conv_inputs(length=sum(lengths), channels=5, initial_state=False, seed=seed)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None].int()

    def separate(x: Tensor, return_final_state: bool, **rest: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        done = [
            causal_conv1d(part, reverse=reverse, return_final_state=True, backend=backend, **rest)
            for part in x.split(lengths, dim=1)
        ]
        return torch.cat([y for y, _ in done], dim=1), done[0 if reverse else -1][1]

    packed = conv_results(inputs | {"seq_idx": index}, reverse=reverse, backend=backend)
    torch.testing.assert_close(packed, results(separate, inputs), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_of_a_projection_are_read_where_they_lie(dtype: torch.dtype) -> None:
    inputs = cast(conv_inputs(batch=2, length=30, channels=37), dtype)
    buffer = torch.full((2, 33, 90), float("nan"), dtype=dtype)
    view = buffer[:, 1:31, 50:87]
    view.copy_(inputs["x"])
    found, expected = (conv_results(inputs | {"x": x}, backend="cpu") for x in (view, inputs["x"]))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    inputs = cast(conv_inputs(batch=3, length=500, channels=200, packed=True), torch.float32)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(conv_results(inputs, backend="cpu", reverse=(True, False)))
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name


def test_inputs_are_left_alone() -> None:
    inputs = conv_inputs(batch=2, length=30, channels=20, packed=True)
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    conv_results(inputs, backend="cpu")
    for name, tensor in inputs.items():
        assert torch.equal(tensor, copies[name]), name


def wide(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, all in float64."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

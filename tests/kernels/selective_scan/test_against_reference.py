"""Fast paths against the loop that defines them, in float64: all options, all outputs, all gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genossm_kernels import selective_scan
from genossm_kernels.testing import errors, scan_inputs, scan_results

OPTIONAL = ("D", "z", "delta_bias", "initial_state", "seq_idx")


@st.composite
def scans(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options; lengths on both sides of a step's, a chunk's and a segment's, blocks with ragged ends."""
    groups, blocks = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (6, 1)]))
    channels = 6 * draw(st.sampled_from([1, 2, 3, 12]))
    inputs: dict[str, Any] = scan_inputs(
        draw(st.sampled_from(["random", "trained"])),
        batch=draw(st.integers(1, 2)),
        length=draw(st.sampled_from([1, 2, 7, 8, 31, 32, 33, 65, 70])),
        channels=channels,
        states=draw(st.sampled_from([1, 3, 8, 9, 16, 20])),
        groups=groups,
        packed=True,
        seed=draw(st.integers(0, 1000)),
    )
    for name in draw(st.sets(st.sampled_from(OPTIONAL))):
        del inputs[name]
    directions = st.lists(st.booleans(), min_size=blocks, max_size=blocks).map(tuple)
    return inputs, {"reverse": draw(directions), "delta_softplus": draw(st.booleans())}


def _with_positive_steps(inputs: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Without softplus a normal step could be negative, which lets states grow without bound."""
    if options["delta_softplus"]:
        return inputs
    bias = {"delta_bias": inputs["delta_bias"].abs()} if "delta_bias" in inputs else {}
    return inputs | bias | {"delta": inputs["delta"].abs() * 0.1}


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@settings(max_examples=25)
@given(scan=scans())
@example(scan=(scan_inputs(length=65, channels=70, states=17), {"reverse": (True,), "delta_softplus": True}))
def test_every_result_is_the_definition_s(backend: str, scan: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inputs, options = scan
    inputs = _with_positive_steps(inputs, options)
    truth = scan_results(inputs, backend="reference", **options)
    found = scan_results(inputs, backend=backend, **options)
    assert found.keys() == truth.keys()
    for name, error in errors(found, truth).items():
        assert error.largest < 1e-12, name
    with torch.no_grad():  # decoding and inference take other paths than training
        y, state = selective_scan(**inputs, return_final_state=True, backend=backend, **options)
    inferred = errors({"y": y, "final_state": state}, {name: truth[name] for name in ("y", "final_state")})
    assert max(error.largest for error in inferred.values()) < 1e-12


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("regime", ["random", "extreme"])
@pytest.mark.parametrize("length", [1, 33])
@pytest.mark.parametrize(("channels", "groups"), [(5, 1), (68, 2), (21, 3)])
def test_nothing_unwritten_comes_back(regime: Any, length: int, channels: int, groups: int) -> None:
    inputs = scan_inputs(regime, batch=2, length=length, channels=channels, groups=groups, states=5, packed=True)
    results = scan_results(inputs, backend="cpu", reverse=(True,))
    results |= {f"inferred {k}": v for k, v in scan_results(inputs, backend="cpu", gradients=False).items()}
    for name, tensor in results.items():
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize("missing", ["y", "final_state"])
def test_gradients_where_only_one_output_is_used(missing: str) -> None:
    inputs = scan_inputs(length=40, channels=6, states=3)
    gradients = []
    for backend in ("reference", "cpu"):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        y, state = selective_scan(**leaves, return_final_state=True, backend=backend)
        used = state if missing == "y" else y
        used.sum().backward()
        gradients.append({name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})
    reference, cpu = gradients
    assert reference.keys() <= cpu.keys()
    for name, gradient in cpu.items():
        torch.testing.assert_close(gradient, reference.get(name, torch.zeros_like(gradient)), rtol=1e-10, atol=1e-12)

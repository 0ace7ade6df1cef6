"""The judge of two ways to compute: what it lets pass, what it names, and where."""

from __future__ import annotations

import math

import pytest
import torch

from genossm.testing.exactness import less_exact

EXACT = {"logits": torch.randn(2, 160, 4, generator=torch.Generator().manual_seed(0)), "weight": torch.ones(3)}


def off(by: float, *, name: str = "logits", place: slice = slice(None)) -> dict[str, torch.Tensor]:
    """The exact tensors, one of them wrong by a share of itself, everywhere or along a stretch."""
    found = {key: tensor.clone() for key, tensor in EXACT.items()}
    wrong = found[name][:, place] if name == "logits" else found[name]
    wrong *= 1 + by
    return found


def test_twice_the_error_passes_and_more_does_not() -> None:
    trusted = off(1e-3)
    assert less_exact(off(1.9e-3), trusted, EXACT, rounding=0) == []
    (line,) = less_exact(off(3e-3), trusted, EXACT, rounding=0)
    assert line.startswith("logits: error 3.0e-03, 1.50 times")
    assert less_exact(off(3e-3), trusted, EXACT, rounding=0, times=4) == []


def test_luck_is_no_measure() -> None:
    assert less_exact(off(1e-3, name="weight"), EXACT, EXACT, rounding=6e-4) == []
    assert len(less_exact(off(1e-3, name="weight"), EXACT, EXACT, rounding=4e-4)) == 1


def test_an_error_in_one_place_is_seen_and_placed() -> None:
    trusted, found = off(1e-3), off(4e-3, place=slice(70, 80))
    assert less_exact(found, trusted, EXACT, rounding=0) == []
    (line,) = less_exact(found, trusted, EXACT, rounding=0, sequences=["logits"])
    assert line.startswith("logits, positions 70 to 79: error 4.0e-03")


def test_all_are_named_the_worst_first_and_nan_before_them() -> None:
    found = off(1e-2) | {"weight": off(1e-1, name="weight")["weight"]}
    assert [line.split(":")[0] for line in less_exact(found, EXACT, EXACT, rounding=1e-3)] == ["weight", "logits"]
    found["logits"] = found["logits"] * math.nan
    assert [line.split(":")[0] for line in less_exact(found, EXACT, EXACT, rounding=1e-3)] == ["logits", "weight"]


def test_other_names_are_no_agreement() -> None:
    with pytest.raises(ValueError, match="weight"):
        less_exact({"logits": EXACT["logits"]}, EXACT, EXACT, rounding=1)


def test_short_sequences_have_fewer_stretches() -> None:
    short = {"logits": torch.ones(1, 3, 1)}
    lines = less_exact({"logits": 2 * short["logits"]}, short, short, rounding=0.1, sequences=["logits"])
    assert len(lines) == 4

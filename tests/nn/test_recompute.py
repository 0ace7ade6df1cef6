"""What the backward pass makes again: the same bits, less memory, and no tensor that changed meanwhile."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

import genossm.nn.stack as stack_module
from genossm.nn import Stack, StackConfig
from genossm.nn.recompute import LEVELS, Recompute, forgettable, recomputing
from genossm.testing.models import enliven

CONFIGS: dict[str, dict[str, Any]] = {
    "causal": {},
    "layer_norm": {"norm": "layer", "proj_bias": True, "conv_bias": False},
    "equivariant": {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"},
    "untied": {"direction": "bidirectional", "objective": "masked", "tie_directions": False},
}


def make(recompute: Recompute, **choices: Any) -> Stack:
    torch.manual_seed(0)
    config = StackConfig(**{"d_model": 16, "n_layer": 2} | choices)
    stack = enliven(Stack(config, torch.arange(16).flip(0) if config.equivariant else None), 1)
    for block in stack.layers:
        block.recompute = recompute  # pyright: ignore[reportAttributeAccessIssue]
    return stack


def ids() -> torch.Tensor:
    return torch.randint(0, 16, (2, 45), generator=torch.Generator().manual_seed(1))


def gradients(stack: Stack, *, autocast: bool = False, again: bool = False) -> list[torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = stack(ids())
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    parameters = list(stack.parameters())
    found = torch.autograd.grad(y, parameters, weight, retain_graph=again)
    return [y, *found, *(torch.autograd.grad(y, parameters, weight) if again else ())]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("level", LEVELS[1:])
def test_the_same_bits(level: Recompute, name: str, autocast: bool) -> None:
    expected = gradients(make("nothing", **CONFIGS[name]), autocast=autocast)
    found = gradients(make(level, **CONFIGS[name]), autocast=autocast, again=True)
    for twice in (found[: len(expected)], [found[0], *found[len(expected) :]]):
        for plain, made in zip(expected, twice, strict=True):
            assert torch.equal(plain, made)


def test_a_carried_state_is_differentiated_too() -> None:
    found = []
    for level in LEVELS:
        stack = make(level)
        first = stack.run(ids()[:, :20])
        second = stack.run(ids()[:, 20:], first.state)
        found.append(torch.autograd.grad(second.last_hidden.square().sum(), list(stack.parameters())))
    for tensors in zip(*found, strict=True):
        assert torch.equal(tensors[0], tensors[1])
        assert torch.equal(tensors[0], tensors[2])


def test_each_level_keeps_less() -> None:
    """Bytes that autograd holds, shared memory counted once."""
    kept = []
    for level in LEVELS:
        held: dict[int, torch.UntypedStorage] = {}

        def hold(tensor: torch.Tensor, held: dict[int, torch.UntypedStorage] = held) -> torch.Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage
            return tensor

        stack = make(level, d_model=64, d_state=2)
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            if level == "nothing":
                stack(ids())
            else:
                kept_by_plan(stack, hold)
        weights = {parameter.untyped_storage().data_ptr() for parameter in stack.parameters()}
        kept.append(sum(storage.nbytes() for address, storage in held.items() if address not in weights))
    assert kept[1] < 0.75 * kept[0]
    assert kept[2] < 0.75 * kept[1]


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_is_forgotten_is_freed_before_the_graph_is(level: Recompute, monkeypatch: pytest.MonkeyPatch) -> None:
    from genossm.nn import mamba1

    forgotten: list[StorageWeakRef] = []

    def noted(tensor: torch.Tensor, *others: Any) -> torch.Tensor:
        forgotten.append(StorageWeakRef(tensor.untyped_storage()))
        return forgettable(tensor, *others)

    monkeypatch.setattr(mamba1, "forgettable", noted)
    y = make(level)(ids())
    assert len(forgotten) == 6  # two layers: the projection, the convolution's result and the step sizes
    # Of these, "cheap" keeps the projections.
    assert sum(not reference.expired() for reference in forgotten) == (2 if level == "cheap" else 0)
    y.sum().backward()


def kept_by_plan(stack: Stack, hold: Any) -> None:
    """The plan's own hooks are the inner ones: look at what they keep."""
    from genossm.nn import recompute

    plain = recompute._Kept
    try:
        recompute._Kept = lambda tensor, version: plain(hold(tensor), version)  # type: ignore[assignment,misc]
        stack(ids())
    finally:
        recompute._Kept = plain


def test_weights_given_by_functional_call_are_the_ones_used_again() -> None:
    expected = gradients(make("nothing"))
    stack = make("projections")
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in stack.named_parameters()}
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.fill_(float("nan"))
    y = torch.func.functional_call(stack, weights, (ids(),))
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad(y, list(weights.values()), weight)
    for plain, made in zip(expected[1:], found, strict=True):
        assert torch.equal(plain, made)


def test_a_layer_that_replaces_a_projection_is_not_run_again() -> None:
    class Counting(torch.nn.Linear):
        calls = 0

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            Counting.calls += 1
            return super().forward(input)

    stack = make("projections")
    for block in stack.layers:
        counting = Counting(16, 64, bias=False)
        block.mixer.in_proj = counting  # pyright: ignore[reportAttributeAccessIssue]
    stack(ids()).sum().backward()
    assert Counting.calls == 2


def test_a_weight_changed_before_the_backward_pass_is_an_error() -> None:
    stack = make("cheap")
    y = stack(ids())
    with torch.no_grad():
        for block in stack.layers:
            block.mixer.conv1d.weight.add_(1)  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]
    with pytest.raises(RuntimeError, match="changed in place between"):
        y.sum().backward()


def test_a_region_inside_a_checkpoint_is_left_alone_by_nothing() -> None:
    """The level for users with checkpoints of their own."""
    expected = gradients(make("nothing"))
    stack = make("nothing")
    stream = stack.embedding(ids())
    for block in stack.layers:
        stream = torch.utils.checkpoint.checkpoint(block, stream, use_reentrant=False)[0]
    y = stack.norm_f(stream)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    for plain, made in zip(expected[1:], torch.autograd.grad(y, list(stack.parameters()), weight), strict=True):
        assert torch.equal(plain, made)


def test_memory_used_again_is_not_mistaken_for_a_forgotten_tensor() -> None:
    x = torch.randn(1000, requires_grad=True)
    with recomputing("cheap"):
        forgettable(x.sin(), "cheap", torch.sin, x)
        others = [x.cos().mul(float(number)).square() for number in range(5)]
    total = torch.stack(others).sum()
    (gradient,) = torch.autograd.grad(total, x)
    expected = sum(-(float(n) ** 2) * 2 * x.detach().cos() * x.detach().sin() for n in range(5))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("length", "kept"), [(31, "nothing"), (32, "cheap")])
def test_auto_goes_by_the_number_of_tokens(length: int, kept: Recompute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "_LONG", 64)
    asked: list[str] = []

    def noted(level: Recompute) -> AbstractContextManager[None]:
        asked.append(level)
        return recomputing(level)

    monkeypatch.setattr(stack_module, "recomputing", noted)
    stack = make("nothing")
    for block in stack.layers:
        block.recompute = "auto"  # pyright: ignore[reportAttributeAccessIssue]
    stack(torch.zeros(2, length, dtype=torch.int64))
    assert asked == [kept, kept]

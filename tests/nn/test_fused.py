"""The inside of mixers as one step: the numbers of the separate ones, whatever is asked of the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.nn import Bidirectional, BothStrands, LayerState, Mamba1, Stack, StackConfig, fused
from genossm.nn.directions import build_mixer
from genossm.nn.recompute import LEVELS, Recompute, recomputing
from genossm.nn.watching import watching_states
from genossm.nn.ways import on_whole_pieces
from genossm.testing.models import enliven

BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
CONFIGS: dict[str, dict[str, Any]] = {
    "causal": {},
    "causal_biases": {"proj_bias": True, "conv_bias": False, "d_conv": 1, "d_state": 5},
    "both": BOTH,
    "both_biases": BOTH | {"proj_bias": True},
    "untied": BOTH | {"tie_directions": False},
    "strands": BOTH | {"reverse_complement": "equivariant"},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of ways of every fused call, which this machine makes as a GPU would."""
    made: list[int] = []
    run = fused._run

    def counted(steps: Any, *rest: Any, **options: Any) -> Any:
        made.append(len(steps))
        return run(steps, *rest, **options)

    monkeypatch.setattr(fused, "DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(fused, "FEWEST", 5)
    monkeypatch.setattr(fused, "_run", counted)
    return made


def build(dtype: torch.dtype = torch.float64, **choices: Any) -> Mamba1 | Bidirectional | BothStrands:
    torch.manual_seed(0)
    return enliven(build_mixer(StackConfig(d_model=16, n_layer=1, **choices)), 1).to(dtype)


def states_of(mixer: torch.nn.Module, batch: int) -> Any:
    """A state for every passage: one, two, or two for each strand."""
    first = mixer if isinstance(mixer, Mamba1) else next(one for one in mixer.modules() if isinstance(one, Mamba1))
    g = torch.Generator().manual_seed(3)

    def state() -> LayerState:
        channels = first.D.shape[0]
        conv = torch.randn((batch, first.conv1d.kernel_size[0] - 1, channels), generator=g, dtype=first.D.dtype)
        scan = torch.randn((batch, channels, first.d_state), generator=g, dtype=first.D.dtype)
        return LayerState(conv.requires_grad_(), scan.requires_grad_())

    if isinstance(mixer, Mamba1):
        return state()
    both = (state(), state())
    return (both, (state(), state())) if isinstance(mixer, BothStrands) else both


def flat(state: Any) -> list[Tensor]:
    return (
        [state.conv, state.scan] if isinstance(state, LayerState) else [tensor for one in state for tensor in flat(one)]
    )


def differentiate(
    mixer: torch.nn.Module, level: Recompute = "nothing", *, with_state: bool = False, reverse: bool = False,
    autocast: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """Outputs, states after, and all gradients."""
    dtype = torch.bfloat16 if autocast else next(mixer.parameters()).dtype
    hidden = torch.randn((4, 37, mixer_width(mixer)), generator=torch.Generator().manual_seed(1)).to(dtype)
    hidden.requires_grad_()
    state = states_of(mixer, 2 if isinstance(mixer, BothStrands) else 4) if with_state else None
    options = {} if isinstance(mixer, BothStrands) else {"reverse": reverse}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), recomputing(level):
        y, after = mixer(hidden, state, **options)
    outputs = {"y": y} | ({} if after is None else {"conv": after.conv, "scan": after.scan})
    outputs = {name: tensor for name, tensor in outputs.items() if tensor.numel()}
    g = torch.Generator().manual_seed(2)
    weights = [torch.randn(tensor.shape, generator=g).to(tensor.dtype) for tensor in outputs.values()]
    inputs = {"hidden": hidden, **dict(mixer.named_parameters())}
    inputs |= {
        f"state {number}": tensor for number, tensor in enumerate(flat(state) if with_state else []) if tensor.numel()
    }
    found = torch.autograd.grad(list(outputs.values()), list(inputs.values()), weights)
    return {name: tensor.detach() for name, tensor in (*outputs.items(), *zip(inputs, found, strict=True))}


def mixer_width(mixer: torch.nn.Module) -> int:
    return next(one for one in mixer.modules() if isinstance(one, Mamba1)).in_proj.in_features


def unfused(monkeypatch: pytest.MonkeyPatch, mixer: torch.nn.Module, *args: Any, **options: Any) -> dict[str, Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "DEVICES", frozenset())
        return differentiate(mixer, *args, **options)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_and_gradients_of_the_separate_steps(
    name: str, with_state: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer = build(**CONFIGS[name])
    reverse = name != "strands"
    expected = unfused(monkeypatch, mixer, with_state=with_state, reverse=reverse)
    assert not calls
    found = differentiate(mixer, with_state=with_state, reverse=reverse)
    assert calls == {"both": [2], "both_biases": [2], "untied": [1, 1], "strands": [4]}.get(name, [1])
    assert found.keys() == expected.keys()
    for what, tensor in expected.items():
        torch.testing.assert_close(found[what], tensor, rtol=1e-11, atol=1e-11, msg=what)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_made_again_has_the_same_bits(name: str, autocast: bool) -> None:
    mixer = build(torch.float32, **CONFIGS[name])
    expected = differentiate(mixer, autocast=autocast)
    for level in LEVELS[1:]:
        found = differentiate(mixer, level, autocast=autocast)
        for what, tensor in expected.items():
            assert torch.equal(found[what], tensor), what


@pytest.mark.parametrize("name", CONFIGS)
def test_under_autocast_it_errs_no_more(name: str, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer sums are rounded to bfloat16; weights' gradients are float32 all the same."""
    mixer = build(torch.float32, **CONFIGS[name])
    plain = unfused(monkeypatch, mixer, autocast=True)
    found = differentiate(mixer, autocast=True)
    assert calls
    exact = unfused(monkeypatch, mixer.double())
    for what, tensor in exact.items():
        assert found[what].dtype == plain[what].dtype
        scale = tensor.norm()
        error, allowed = (found[what].double() - tensor).norm(), (plain[what].double() - tensor).norm()
        assert error <= 1.25 * allowed + 2**-9 * scale, what


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_gradient_the_same_outputs(name: str, calls: list[int]) -> None:
    mixer = build(**CONFIGS[name])
    hidden = torch.randn(4, 37, mixer_width(mixer), dtype=torch.float64)
    expected = mixer(hidden)[0]
    with torch.no_grad():
        found = mixer(hidden)[0]
    assert torch.equal(found, expected)
    with torch.inference_mode():
        assert torch.equal(mixer(hidden)[0], expected)
    assert len(calls) == (6 if name == "untied" else 3)


def test_rows_of_x_proj_are_made_to_begin_on_16_bytes() -> None:
    g = torch.Generator().manual_seed(0)
    x_weight, step_weight = torch.randn((12 + 2 * 8, 32), generator=g), torch.randn((32, 12), generator=g)
    found, steps = on_whole_pieces(x_weight.bfloat16(), step_weight.bfloat16(), 8)
    assert torch.equal(torch.cat([found[:12], found[16:]]), x_weight.bfloat16())
    assert torch.equal(steps[:, :12], step_weight.bfloat16())
    assert not found[12:16].any()
    assert not steps[:, 12:].any()
    for same, given in zip(on_whole_pieces(x_weight, step_weight, 8), (x_weight, step_weight), strict=True):
        assert same is given  # 12 of four bytes do


def test_few_tokens_are_left_to_the_separate_steps(calls: list[int]) -> None:
    mixer = build()
    mixer(torch.randn(1, 4, 16, dtype=torch.float64))
    assert not calls
    mixer(torch.randn(1, 5, 16, dtype=torch.float64))
    assert calls == [1]


def test_watchers_see_the_same_states(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = build(**CONFIGS["strands"])
    hidden = torch.randn(4, 37, 8, dtype=torch.float64)
    with watching_states() as found:
        mixer(hidden)
    monkeypatch.setattr(fused, "DEVICES", frozenset())
    with watching_states() as expected:
        mixer(hidden)
    assert calls == [4]
    assert found.keys() == expected.keys()
    for one, states in expected.items():
        assert len(found[one]) == len(states) == 2
        for ours, theirs in zip(found[one], states, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_frozen_weights_have_no_gradient_and_the_others_theirs(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer = build(**BOTH)
    expected = unfused(monkeypatch, mixer)
    for name, parameter in mixer.named_parameters():
        parameter.requires_grad_("x_proj" not in name and "dt_proj" not in name and "A_log" not in name)
    hidden = torch.randn((4, 37, 16), generator=torch.Generator().manual_seed(1)).double()
    weight = torch.randn((4, 37, 16), generator=torch.Generator().manual_seed(2)).double()
    mixer(hidden)[0].backward(weight)
    assert calls
    for name, parameter in mixer.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-11, atol=1e-11, msg=name)


def replaced(mixer: Any) -> None:
    class Adapter(torch.nn.Linear):
        pass

    mixer.x_proj.__class__ = Adapter


def listened_to(mixer: Any) -> None:
    mixer.dt_proj.register_forward_hook(lambda *_: None)


def plain_back_end(mixer: Any) -> None:
    mixer.backend = "torch"


def narrower(mixer: Any) -> None:
    mixer.x_proj.double()
    mixer.x_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    mixer.x_proj.register_forward_hook(lambda _module, _inputs, output: output.float())


@pytest.mark.parametrize("change", [replaced, listened_to, plain_back_end, narrower])
def test_a_mixer_that_is_not_as_it_was_built_is_left_alone(change: Any, calls: list[int]) -> None:
    mixer = build(torch.float32)
    expected = mixer(torch.ones(1, 5, 16))[0]
    assert calls == [1]
    change(mixer)
    torch.testing.assert_close(mixer(torch.ones(1, 5, 16))[0], expected)
    assert calls == [1]


def test_whoever_watches_calls_go_by_sees_the_operators(calls: list[int]) -> None:
    """A dispatch mode, a compiler: they are shown what they know."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watching(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.add(function.name())
            return function(*args, **(kwargs or {}))

    mixer = build(torch.float32)
    with Watching() as mode, torch.no_grad():
        mixer(torch.ones(1, 5, 16))
    assert {"genossm::selective_scan", "genossm::causal_conv1d"} <= mode.seen
    assert not calls


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["causal", "both", "strands"])
def test_a_second_backward_pass_finds_what_the_first_found(name: str, level: Recompute, calls: list[int]) -> None:
    """Gradients lie in memory of other tensors, none of which is needed again."""
    mixer = build(**CONFIGS[name])
    hidden = torch.randn(4, 37, mixer_width(mixer), dtype=torch.float64, requires_grad=True)
    with recomputing(level):
        y = mixer(hidden)[0]
    leaves, weight = [hidden, *mixer.parameters()], torch.randn_like(y)
    untouched = weight.clone()
    first = torch.autograd.grad(y, leaves, weight, retain_graph=True)
    assert calls
    for one, other in zip(first, torch.autograd.grad(y, leaves, weight), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(weight, untouched)


def test_a_gradient_that_others_see_is_left_as_it_is(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for the last projection may hand on the very gradient that it is given."""
    mixer: Any = build()
    mixer.out_proj = torch.nn.Identity()
    weight = torch.randn((4, 37, 32), dtype=torch.float64)
    untouched = weight.clone()
    hidden = torch.randn((4, 37, 16), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(mixer(hidden)[0], [hidden], weight)
    assert calls == [1]
    assert torch.equal(weight, untouched)
    monkeypatch.setattr(fused, "DEVICES", frozenset())
    (expected,) = torch.autograd.grad(mixer(hidden)[0], [hidden], weight)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_stack_in_checkpoints(calls: list[int]) -> None:
    torch.manual_seed(0)
    stack = enliven(Stack(StackConfig(d_model=16, n_layer=2, **BOTH)), 1)
    stack.recompute("nothing")
    ids = torch.randint(0, 16, (2, 45), generator=torch.Generator().manual_seed(1))
    weight = torch.randn((2, 45, 16), generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad(stack(ids), list(stack.parameters()), weight)
    stream = stack.embedding(ids)
    for block in stack.layers:
        stream = checkpoint(block, stream, use_reentrant=False)[0]
    found = torch.autograd.grad(stack.norm_f(stream), list(stack.parameters()), weight)
    assert calls
    for plain, made in zip(expected, found, strict=True):
        assert torch.equal(plain, made)

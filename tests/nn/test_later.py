"""What is left to later steps without gradients, on an emulated GPU; nothing is where somebody looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genossm.nn import Stack, StackConfig, fused, later, norm
from genossm.testing.models import enliven
from genossm_kernels import dispatch, kinds, look_up
from genossm_kernels._cuda import emulation
from genossm_kernels.add_norm import cuda

BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
CONFIGS: dict[str, dict[str, Any]] = {
    "causal": {},
    "both": BOTH,
    "strands": BOTH | {"reverse_complement": "equivariant"},
}
LAYERS, LENGTH = 2, 45


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> emulation.Emulator:
    return emulation.Emulator(tmp_path_factory.mktemp("emulation"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, emulator: emulation.Emulator) -> list[bool]:
    """Of every projection that its norm took along: whether the stream was written. An emulated GPU makes norms."""
    made: list[bool] = []
    run = norm.forward_leaving

    def counted(*arguments: Any, keep: bool) -> Any:
        made.append(keep)
        return run(*arguments, keep=keep)

    for module in (fused, later):
        monkeypatch.setattr(module, "DEVICES", frozenset({"cpu"}))
        monkeypatch.setattr(module, "FEWEST", 5)
    for module in (cuda, look_up):
        monkeypatch.setattr(module, "launcher_for", lambda _: emulator)
        monkeypatch.setattr(module, "unavailable_reason", lambda _: None)
    monkeypatch.setattr(look_up, "FEWEST", 5)
    monkeypatch.setattr(later, "_TOKENS_PER_ROW", 1)
    monkeypatch.setattr(norm, "forward_leaving", counted)
    dispatch.choose_backend.cache_clear()
    kinds.forget_all()
    return made


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    yield
    dispatch.choose_backend.cache_clear()
    kinds.forget_all()


def build(backend: str = "cuda", **choices: Any) -> Stack:
    """backend: of the norms."""
    torch.manual_seed(0)
    complement = torch.arange(16).flip(0) if choices.get("reverse_complement") == "equivariant" else None
    config = StackConfig(d_model=64, n_layer=LAYERS, **choices)
    stack = enliven(Stack(config, complement), 1)
    for one in stack.modules():
        if isinstance(one, norm.RMSNorm):
            one.backend = backend
    return stack


def ids_of(stack: Stack, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(0, stack.config.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(5)).to(dtype)


def run(stack: Stack, ids: Tensor, **options: Any) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return stack.run(ids, **options).last_hidden


def exact(stack: Stack, ids: Tensor) -> Tensor:
    """In float64, by the separate steps."""
    wide = build(
        "torch", **{name: getattr(stack.config, name) for name in ("direction", "objective", "reverse_complement")}
    )
    wide.load_state_dict(stack.state_dict())
    return wide.double()(ids).detach()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_errs_no_more_than_the_separate_steps(
    name: str, dtype: torch.dtype, kept: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = build(**CONFIGS[name])
    ids = ids_of(stack, dtype)
    found = run(stack, ids)
    assert kept == [True] * (LAYERS - 1) + [False]
    monkeypatch.setattr(later, "DEVICES", frozenset())
    separate, expected = run(stack, ids), exact(stack, ids)
    assert len(kept) == LAYERS
    assert found.dtype == separate.dtype
    error, allowed = (found - expected).norm(), (separate - expected).norm()
    assert 0 < error <= 1.1 * allowed


def test_no_one_who_looks_misses_anything(kept: list[bool]) -> None:
    stack = build(**BOTH)
    ids, seen = ids_of(stack), []
    plain = run(stack, ids, return_hidden_states=True)
    assert kept == [False]  # behind the last block there is nothing to be seen but the result
    names = ("layers.0", "layers.0.mixer", "layers.0.mixer.mamba_fwd.out_proj", "layers.1.norm", "embedding")
    for name in names:
        handle = stack.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
        found = run(stack, ids)
        handle.remove()
        assert seen == [1], name
        seen.clear()
        assert (found - plain).norm() <= 2**-7 * plain.norm()


def test_gradients_take_the_separate_steps(kept: list[bool]) -> None:
    stack = build()
    with torch.autocast("cpu", torch.bfloat16):
        stack(ids_of(stack)).sum().backward()
    assert not kept
    assert stack.embedding.weight.grad is not None


def test_a_stack_that_goes_on_from_its_state(kept: list[bool]) -> None:
    stack = build()
    ids = ids_of(stack)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = stack.run(ids)
        first = stack.run(ids[:, :20])
        second = stack.run(ids[:, 20:], first.state)
    assert len(kept) == 3 * LAYERS
    joined = torch.cat([first.last_hidden, second.last_hidden], dim=1)
    assert (joined - whole.last_hidden).norm() <= 2**-8 * joined.norm()

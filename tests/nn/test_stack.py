"""The stack: residual stream, hidden states, initialisation, gradients, dtypes."""

from __future__ import annotations

import pytest
import torch

from genossm.nn import LanguageModelHead, Stack, StackConfig
from genossm.testing.models import enliven

IDS = torch.tensor([[2, 7, 8, 9, 10, 11, 7, 7, 10, 9, 3, 15]])


def make_stack(**choices: object) -> Stack:
    torch.manual_seed(0)
    return enliven(Stack(StackConfig(**{"d_model": 12, "n_layer": 3, "backend": "reference", **choices})), 1)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_hidden_states_are_the_residual_stream(norm: str) -> None:
    stack = make_stack(norm=norm)
    output = stack.run(IDS, return_hidden_states=True)
    assert output.hidden_states is not None
    assert len(output.hidden_states) == 4
    assert torch.equal(output.hidden_states[0], stack.embedding(IDS))
    stream = output.hidden_states[0]
    for block, entering in zip(list(stack.layers), output.hidden_states):
        assert torch.equal(entering, stream)
        stream = stream + block.mixer(block.norm(stream))[0]
    assert torch.equal(output.hidden_states[-1], stack.norm_f(stream))
    assert torch.equal(output.last_hidden, output.hidden_states[-1])


@torch.no_grad()
def test_id_dtypes_agree() -> None:
    stack = make_stack()
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(stack(IDS.to(dtype)), stack(IDS))


@torch.no_grad()
def test_residual_in_fp32_keeps_small_additions() -> None:
    """With bfloat16 weights a wide stream comes closer to the float32 model than a narrow one."""
    wide, narrow = make_stack(n_layer=12), make_stack(n_layer=12, residual_in_fp32=False)
    exact = wide(IDS)
    hidden = wide.to(torch.bfloat16).run(IDS, return_hidden_states=True).hidden_states
    assert hidden is not None
    assert {tensor.dtype for tensor in hidden[:-1]} == {torch.float32}
    narrow_hidden = narrow.to(torch.bfloat16).run(IDS, return_hidden_states=True).hidden_states
    assert narrow_hidden is not None
    assert {tensor.dtype for tensor in narrow_hidden} == {torch.bfloat16}
    assert (hidden[-1].float() - exact).norm() < (narrow_hidden[-1].float() - exact).norm()


@torch.no_grad()
def test_bfloat16_autocast_stays_close() -> None:
    stack = make_stack()
    exact = stack(IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = stack.run(IDS)
    assert narrow.last_hidden.dtype == torch.float32
    assert {layer.scan.dtype for layer in narrow.state.layers} == {torch.float32}
    assert (narrow.last_hidden - exact).norm() / exact.norm() < 0.03


def test_initialisation_scales_with_depth() -> None:
    torch.manual_seed(1)
    deep = Stack(StackConfig(64, 16, initializer_range=0.05))
    plain = Stack(StackConfig(64, 16, rescale_prenorm_residual=False))
    # PyTorch's own range for a linear map of 128 inputs is 1 / sqrt(128); 16 layers make it a quarter.
    bound = 128**-0.5
    largest = max(block.mixer.out_proj.weight.abs().max().item() for block in list(deep.layers))
    assert largest == pytest.approx(bound / 4, rel=0.01)
    assert next(iter(plain.layers)).mixer.out_proj.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert deep.embedding.weight.std().item() == pytest.approx(0.05, rel=0.1)


def test_gradcheck_of_a_whole_model() -> None:
    torch.manual_seed(2)
    stack = enliven(Stack(StackConfig(3, 2, vocab_size=5, d_state=2, d_conv=2, backend="reference")).double(), 3)
    head = LanguageModelHead(stack.embedding, tied=True)
    names = [name for name, _ in stack.named_parameters()]
    weights = [parameter.detach().requires_grad_() for parameter in stack.parameters()]
    ids = torch.tensor([[0, 1, 2, 3], [4, 4, 1, 0]])

    def run(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, values))
        hidden = torch.func.functional_call(stack, named, (ids,))
        return torch.func.functional_call(head, {"weight": named["embedding.weight"]}, (hidden,))

    assert torch.autograd.gradcheck(run, tuple(weights))


def test_head_shares_or_owns_its_weights() -> None:
    stack = make_stack()
    assert LanguageModelHead(stack.embedding, tied=True).weight is stack.embedding.weight
    own = LanguageModelHead(stack.embedding, tied=False)
    assert own.weight.shape == stack.embedding.weight.shape
    assert own.weight.data_ptr() != stack.embedding.weight.data_ptr()
    hidden = torch.randn(2, 3, 12)
    torch.testing.assert_close(own(hidden), torch.einsum("bld,vd->blv", hidden, own.weight))


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_hooks_and_hidden_states_see_whole_blocks_and_change_no_bit(norm: str) -> None:
    """Alone, a block's addition is left to the next norm; watched, replaced or asked for, it is made at once."""

    class Other(type(make_stack().layers[0])):
        def forward(self, stream: torch.Tensor, state: object = None) -> tuple[torch.Tensor, None]:
            return super().forward(stream, state)

    found = []
    seen: list[torch.Tensor] = []
    for change in ("nothing", "hidden", "hook", "norm_hook", "class"):
        stack = make_stack(norm=norm)
        if change == "hook":
            stack.layers[1].register_forward_hook(lambda _, __, output: seen.append(output[0].detach()))
        elif change == "norm_hook":
            stack.layers[1].norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
        elif change == "class":
            stack.layers[1].__class__ = Other
        output = stack.run(IDS, return_hidden_states=change == "hidden")
        gradients = torch.autograd.grad(output.last_hidden.square().sum(), list(stack.parameters()))
        found.append((output.last_hidden, *gradients))
        if change == "hidden":
            hidden = output.hidden_states
    for tensors in zip(*found, strict=True):
        assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)
    assert hidden is not None
    assert [torch.equal(one, other) for one, other in zip(seen, (hidden[2], hidden[1]), strict=True)] == [True, True]

"""Both directions and both strands: compositions equal to what they stand for, and equivariance to rounding."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.core.errors import ConfigError, MethodError
from genossm.core.strict import from_mapping
from genossm.models import SequenceModel
from genossm.nn import Bidirectional, BothStrands, Mamba1, Stack, StackConfig, join_strands
from genossm.nn.directions import exchange_strands
from genossm.sequence import NucleotideTokenizer
from genossm.testing.models import enliven

COMPLEMENT = torch.tensor(NucleotideTokenizer().complement_ids, dtype=torch.int64)
DATA = Path(__file__).parents[2] / "data" / "chr20_1-4Mb.fa.gz"


def config_of(**choices: object) -> StackConfig:
    both = {"direction": "bidirectional", "objective": "masked"}
    return StackConfig(**{"d_model": 12, "n_layer": 2, "d_state": 4, **both, **choices})  # type: ignore[arg-type]


def make_model(seed: int = 0, dtype: torch.dtype = torch.float64, **choices: object) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(config_of(**choices), NucleotideTokenizer())
    return enliven(model, seed + 1).to(dtype).eval()


def random_ids(seed: int, batch: int = 2, length: int = 30) -> torch.Tensor:
    return torch.randint(0, 16, (batch, length), generator=torch.Generator().manual_seed(seed))


def reverse_complement(ids: torch.Tensor) -> torch.Tensor:
    return COMPLEMENT[ids.long()].flip(1)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("proj_bias", [True, False])
def test_bidirectional_is_the_sum_of_two_mixers_one_on_the_flipped_sequence(tied: bool, proj_bias: bool) -> None:
    torch.manual_seed(1)
    mixer = enliven(Bidirectional(config_of(tie_directions=tied, proj_bias=proj_bias)).double(), 2)
    hidden = torch.randn(2, 19, 12, dtype=torch.float64)
    expected = mixer.mamba_fwd(hidden)[0] + mixer.mamba_rev(hidden.flip(1))[0].flip(1)
    torch.testing.assert_close(mixer(hidden)[0], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(mixer(hidden, reverse=True)[0], mixer(hidden.flip(1))[0].flip(1), atol=1e-12, rtol=0)


def test_tied_directions_share_projections_and_nothing_else() -> None:
    tied, untied = (Bidirectional(config_of(tie_directions=tied)) for tied in (True, False))
    assert tied.mamba_rev.in_proj is tied.mamba_fwd.in_proj
    assert tied.mamba_rev.out_proj is tied.mamba_fwd.out_proj
    assert tied.mamba_rev.x_proj is not tied.mamba_fwd.x_proj
    one = Mamba1(config_of())
    shared = one.in_proj.weight.numel() + one.out_proj.weight.numel()
    sizes = [sum(weight.numel() for weight in mixer.parameters()) for mixer in (tied, untied)]
    assert sizes[1] - sizes[0] == shared


@torch.no_grad()
def test_scaled_initialisation_visits_shared_weights_once() -> None:
    torch.manual_seed(2)
    stack = Stack(config_of(d_model=64, n_layer=16))
    largest = max(weight.abs().max().item() for name, weight in stack.named_parameters() if "out_proj" in name)
    assert largest == pytest.approx(128**-0.5 / 4, rel=0.01)


@torch.no_grad()
def test_strands_as_rows_equal_flipped_strands() -> None:
    """The definition: the minus strand's mixer reads the flipped sequence, and its result is flipped back."""
    torch.manual_seed(3)
    wrapped = enliven(BothStrands(Bidirectional(config_of(reverse_complement="equivariant"))).double(), 4)
    rows = torch.randn(4, 15, 6, dtype=torch.float64)
    plus, minus = rows.chunk(2)
    expected = torch.cat([wrapped.submodule(plus)[0], wrapped.submodule(minus.flip(1))[0].flip(1)])
    torch.testing.assert_close(wrapped(rows)[0], expected, atol=1e-12, rtol=0)


def test_exchange_swaps_the_halves_of_the_joined_channels() -> None:
    rows = torch.randn(4, 5, 6)
    first, second = join_strands(rows).chunk(2, dim=-1)
    assert torch.equal(join_strands(exchange_strands(rows)), torch.cat([second, first], dim=-1))


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 999),
    tied=st.booleans(),
    exchange=st.booleans(),
    tie_embeddings=st.booleans(),
    norm=st.sampled_from(["rms", "layer"]),
    length=st.integers(1, 40),
)
def test_equivariance_of_logits_hidden_states_and_gradients(
    seed: int, tied: bool, exchange: bool, tie_embeddings: bool, norm: str, length: int
) -> None:
    model = make_model(
        seed, reverse_complement="equivariant", tie_directions=tied, strand_exchange=exchange,
        tie_embeddings=tie_embeddings, norm=norm,
    )  # fmt: skip
    ids = random_ids(seed, length=length)
    weights = torch.randn(2, length, 16, dtype=torch.float64)
    plus = model(ids, return_hidden_states=True)
    gradients = torch.autograd.grad((plus.logits * weights).sum(), list(model.parameters()))
    minus = model(reverse_complement(ids), return_hidden_states=True)
    turned_weights = weights.flip(1)[..., COMPLEMENT]
    turned = torch.autograd.grad((minus.logits * turned_weights).sum(), list(model.parameters()))
    torch.testing.assert_close(minus.logits.flip(1)[..., COMPLEMENT], plus.logits, atol=1e-10, rtol=1e-10)
    for ours, theirs in zip(plus.hidden_states, minus.hidden_states, strict=True):
        torch.testing.assert_close(theirs.flip(1, 2), ours, atol=1e-10, rtol=1e-10)
    for ours, theirs in zip(gradients, turned, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-9, rtol=1e-9)


def test_equivariance_on_real_sequence_to_float32_rounding() -> None:
    with gzip.open(DATA, "rt") as handle:
        letters = "".join(line.strip() for line in handle if not line.startswith(">"))[1_500_000:1_504_096]
    assert set(letters) <= set("ACGTN")
    ids = torch.from_numpy(NucleotideTokenizer().encode(letters))[None]
    length = ids.shape[1]
    weights = torch.randn(1, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

    def found(dtype: torch.dtype, *, turned: bool) -> list[torch.Tensor]:
        """Logits, hidden states and gradients, those of the other strand turned back."""
        model = make_model(5, dtype, reverse_complement="equivariant")
        output = model(reverse_complement(ids) if turned else ids, return_hidden_states=True)
        logits = output.logits.flip(1)[..., COMPLEMENT] if turned else output.logits
        hidden = [state.flip(1, 2) if turned else state for state in output.hidden_states]
        gradients = torch.autograd.grad((logits * weights.to(dtype)).sum(), list(model.parameters()))
        return [tensor.detach().double() for tensor in (logits, *hidden, *gradients)]

    exact, plus, minus = (
        found(torch.float64, turned=False), found(torch.float32, turned=False), found(torch.float32, turned=True)
    )  # fmt: skip
    # What each position says differs by no more between the strands than it differs from the truth. A gradient sums
    # over positions, in opposite orders: rounding adds up like a random walk.
    activations = len(exact) - len(list(make_model(5).parameters()))
    for number, (true, one, other) in enumerate(zip(exact, plus, minus, strict=True)):
        rounding = 2 * (one - true).abs().max()
        if number >= activations:
            rounding = torch.finfo(torch.float32).eps * length**0.5 * true.abs().max()
        assert (other - one).abs().max() <= rounding
    assert (plus[0] - exact[0]).abs().max() < 1e-4


@torch.no_grad()
def test_a_model_without_strand_sharing_is_not_equivariant() -> None:
    """So that the tests above can fail."""
    model, ids = make_model(6), random_ids(6)
    difference = model(reverse_complement(ids)).logits.flip(1)[..., COMPLEMENT] - model(ids).logits
    assert difference.abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("reverse_complement_", ["none", "equivariant"])
def test_every_position_sees_every_other(reverse_complement_: str) -> None:
    model, ids = make_model(7, reverse_complement=reverse_complement_), random_ids(7)
    before = model(ids).logits
    for place in (0, 15, 29):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 16
        assert ((model(changed).logits - before).abs().amax((0, 2)) > 1e-12).all()


@torch.no_grad()
def test_rows_do_not_leak() -> None:
    model, ids = make_model(8, reverse_complement="equivariant"), random_ids(8, batch=3)
    together = model(ids).logits
    for row in range(3):
        torch.testing.assert_close(model(ids[row : row + 1]).logits[0], together[row], atol=1e-12, rtol=0)


def test_gradcheck_of_an_equivariant_model() -> None:
    model = make_model(9, reverse_complement="equivariant", d_model=4, n_layer=1, d_state=2, d_conv=2)
    named = {name: weight.detach().requires_grad_() for name, weight in model.named_parameters()}
    ids = random_ids(9, length=4)

    def run(*values: torch.Tensor) -> torch.Tensor:
        held = dict(zip(named, values))
        shared = {
            name.replace("mamba_fwd", "mamba_rev"): value
            for name, value in held.items()
            if "mamba_fwd.in_proj" in name or "mamba_fwd.out_proj" in name
        }
        held = {**held, **shared, "head.weight": held["backbone.embedding.weight"]}
        return torch.func.functional_call(model, held, (ids,)).logits[..., 6:12]

    assert torch.autograd.gradcheck(run, tuple(named.values()), fast_mode=True)


@torch.no_grad()
def test_there_is_no_state() -> None:
    model, ids = make_model(10), random_ids(10)
    causal = SequenceModel(StackConfig(12, 2, d_state=4))
    state = causal(ids, return_state=True).state
    assert model(ids).state is None
    with pytest.raises(MethodError, match="no state to return"):
        model(ids, return_state=True)
    with pytest.raises(MethodError, match="give it whole windows"):
        model(ids, state=state)
    with pytest.raises(MethodError, match="give it whole windows"):
        model.backbone.initial_state(2)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"direction": "causal", "reverse_complement": "equivariant"}, "would see its future"),
        ({"reverse_complement": "equivariant", "d_model": 13}, "d_model is 13; the two strands"),
        ({"strand_exchange": True}, "there is one strand alone"),
        ({"objective": "causal"}, "objective is 'causal' and direction 'bidirectional'; wanted the objective 'masked'"),
        ({"direction": "causal"}, "objective is 'masked' and direction 'causal'"),
        ({"direction": "backward"}, "direction: got 'backward'"),
    ],
)
def test_what_does_not_go_together_is_refused(choices: dict, message: str) -> None:
    base = {"d_model": 12, "n_layer": 1, "direction": "bidirectional", "objective": "masked"}
    with pytest.raises(ConfigError, match=message):
        from_mapping(StackConfig, {**base, **choices})


def test_an_equivariant_stack_needs_a_complement() -> None:
    with pytest.raises(ConfigError, match="complement of each of 16 ids; got none"):
        Stack(config_of(reverse_complement="equivariant"))
    with pytest.raises(ConfigError, match="got 4 ids"):
        Stack(config_of(reverse_complement="equivariant"), torch.arange(4))

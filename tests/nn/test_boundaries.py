"""States kept inside a sequence are those of shorter sequences, and stretches that start from them repeat the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.nn import Stack, StackConfig, keeping
from genossm.nn.boundaries import run_between, run_keeping, sweep, swept_hidden
from genossm.sequence import NucleotideTokenizer
from genossm.testing.models import enliven

LENGTH = 23
COMPLEMENT = torch.arange(16)
COMPLEMENT[:12] = torch.from_numpy(NucleotideTokenizer().complement_ids.astype("int64"))[:12]
CHOICES = {
    "tied": {},
    "untied, biases, layer norm": {"tie_directions": False, "proj_bias": True, "norm": "layer"},
    "tied, biases": {"proj_bias": True, "d_conv": 9},
    "equivariant": {"reverse_complement": "equivariant"},
    "equivariant, exchange": {"reverse_complement": "equivariant", "strand_exchange": True, "d_conv": 1},
}


def random_ids(seed: int, batch: int = 1, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 16, (batch, length), generator=torch.Generator().manual_seed(seed))


def make_stack(causal: bool, **choices: object) -> Stack:
    torch.manual_seed(0)
    both = {} if causal else {"direction": "bidirectional", "objective": "masked"}
    config = StackConfig(**{"d_model": 12, "n_layer": 3, "d_state": 3, **both, **choices})  # type: ignore[arg-type]
    return enliven(Stack(config, COMPLEMENT if config.equivariant else None).double(), 1)


@pytest.fixture(params=[{}, {"cpu": 1}], ids=["one by one", "at once"], autouse=True)
def way_to_many_places(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU finds the states at many places together; here both ways are taken."""
    monkeypatch.setattr(keeping, "_AT_ONCE", request.param)
    monkeypatch.setattr(keeping, "_SHORTEST_CHUNK", 1)


@pytest.fixture(scope="module", params=CHOICES.values(), ids=list(CHOICES))
def stack(request: pytest.FixtureRequest) -> Stack:
    return make_stack(causal=False, **request.param)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 999),
    edges=st.tuples(st.integers(0, LENGTH - 5), st.integers(0, LENGTH - 5)),
    size=st.integers(1, 5),
    segment=st.sampled_from([4, 7, 100]),
)
def test_stretches_repeat_the_whole(stack: Stack, seed: int, edges: tuple[int, int], size: int, segment: int) -> None:
    ids = random_ids(seed)
    stretches = [(first, first + size) for first in edges]
    found = sweep(stack, ids, edges, [last for _, last in stretches], segment_length=segment)
    pieces = torch.cat([ids[:, first:last] for first, last in stretches])
    inside = run_between(stack, pieces, found.between(stretches))
    with torch.no_grad():
        whole = stack(ids)[0]
    expected = torch.stack([whole[first:last] for first, last in stretches])
    torch.testing.assert_close(inside, expected, atol=1e-11, rtol=0)


def test_what_enters_a_stretch_matters(stack: Stack) -> None:
    ids = random_ids(1)
    found = sweep(stack, ids, [0, 8], [15, LENGTH])
    piece = ids[:, 8:15]
    right = run_between(stack, piece, found.between([(8, 15)]))
    for wrong in ((0, 15), (8, LENGTH)):
        assert (run_between(stack, piece, found.between([wrong])) - right).abs().max() > 1e-4


def test_a_change_inside_a_stretch_reaches_its_inside_alone(stack: Stack) -> None:
    """In one layer nothing else could change, so that a stretch of another sequence is exact."""
    one_layer = make_stack(causal=False, n_layer=1)
    ids, other = random_ids(2), random_ids(2)
    other[0, 10] = (other[0, 10] + 1) % 16
    found = sweep(one_layer, ids, [6], [18])
    inside = run_between(one_layer, other[:, 6:18], found.between([(6, 18)]))
    with torch.no_grad():
        torch.testing.assert_close(inside[0], one_layer(other)[0, 6:18], atol=1e-11, rtol=0)
        deep = run_between(stack, other[:, 6:18], sweep(stack, ids, [6], [18]).between([(6, 18)]))
        assert (deep[0] - stack(other)[0, 6:18]).abs().max() > 1e-9


def test_a_place_without_states_is_named() -> None:
    stack = make_stack(causal=False)
    found = sweep(stack, random_ids(3), [4], [9])
    assert found.nbytes == sum(one.conv.nbytes + one.scan.nbytes for layer in found.layers for one in layer) > 0
    with pytest.raises(KeyError, match="5"):
        found.between([(5, 9)])


@settings(max_examples=15)
@given(seed=st.integers(0, 999), places=st.sets(st.integers(1, LENGTH), max_size=5), late=st.booleans())
@torch.no_grad()
def test_kept_states_are_those_of_the_pieces(seed: int, places: set[int], late: bool) -> None:
    stack = make_stack(causal=True)
    ids = random_ids(seed, batch=3)
    before = stack.run(random_ids(seed + 1, batch=3, length=4)).state if late else None
    found = run_keeping(stack, ids, before, {place: [2, 0] for place in places})
    whole = stack.run(ids, before)
    torch.testing.assert_close(found.last_hidden, whole.last_hidden, atol=1e-12, rtol=0)
    expected = {place: stack.run(ids[:, :place], before).state for place in places}
    pairs = [(found.states[place], state.select([2, 0])) for place, state in expected.items() if state is not None]
    for mine, theirs in [*pairs, (found.state, whole.state)]:
        assert theirs is not None
        assert mine.positions.tolist() == theirs.positions.tolist()
        for a, b in zip(mine.layers, theirs.layers, strict=True):
            torch.testing.assert_close(a.conv, b.conv, atol=1e-12, rtol=0)
            torch.testing.assert_close(a.scan, b.scan, atol=1e-12, rtol=0)


@pytest.mark.parametrize("segment", [4, 7, 100])
def test_hidden_states_of_a_sweep_are_those_of_a_pass(stack: Stack, segment: int) -> None:
    ids, places = random_ids(5), torch.rand(LENGTH, generator=torch.Generator().manual_seed(1)) < 0.4
    found = swept_hidden(stack, ids, places, segment_length=segment)
    with torch.no_grad():
        torch.testing.assert_close(found, stack(ids)[0, places], atol=1e-11, rtol=0)

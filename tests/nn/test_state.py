"""The laws of state: pieces equal the whole, rows do not leak, a saved state continues bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.core.errors import InputFileError, OutputExistsError
from genossm.nn import LayerState, Stack, StackConfig, StackState
from genossm.testing.models import enliven
from genossm_kernels import ShapeError

LENGTH = 14
BACKENDS = ["reference", "cpu"]


def make_stack(backend: str, **choices: object) -> Stack:
    torch.manual_seed(0)
    config = StackConfig(8, 2, d_state=3, backend=backend, **choices)  # type: ignore[arg-type]
    return enliven(Stack(config).double(), 1)


@pytest.fixture(scope="module", params=BACKENDS)
def stack(request: pytest.FixtureRequest) -> Stack:
    return make_stack(request.param)


def random_ids(seed: int, batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 16, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_same_state(one: StackState, other: StackState, atol: float) -> None:
    assert one.positions.tolist() == other.positions.tolist()
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        torch.testing.assert_close(mine.conv, theirs.conv, atol=atol, rtol=0)
        torch.testing.assert_close(mine.scan, theirs.scan, atol=atol, rtol=0)


@settings(deadline=None, max_examples=15)
@given(cuts=st.sets(st.integers(1, LENGTH - 1), max_size=6), seed=st.integers(0, 999))
@torch.no_grad()
def test_pieces_equal_the_whole(stack: Stack, cuts: set[int], seed: int) -> None:
    ids = random_ids(seed)
    whole = stack.run(ids)
    state, pieces = None, []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), LENGTH]):
        piece = stack.run(ids[:, start:end], state)
        state = piece.state
        pieces.append(piece.last_hidden)
        assert state.position == end
    torch.testing.assert_close(torch.cat(pieces, 1), whole.last_hidden, atol=1e-11, rtol=0)
    assert state is not None
    assert_same_state(state, whole.state, atol=1e-11)


@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 999))
@torch.no_grad()
def test_step_by_step_equals_parallel(stack: Stack, seed: int) -> None:
    ids = random_ids(seed)
    state, steps = None, []
    for t in range(LENGTH):
        step = stack.run(ids[:, t : t + 1], state)
        state = step.state
        steps.append(step.last_hidden)
    torch.testing.assert_close(torch.cat(steps, 1), stack(ids), atol=1e-11, rtol=0)


@settings(deadline=None, max_examples=10)
@given(place=st.integers(0, LENGTH - 1), shift=st.integers(1, 15), seed=st.integers(0, 999))
@torch.no_grad()
def test_a_later_token_changes_nothing_earlier(stack: Stack, place: int, shift: int, seed: int) -> None:
    ids = random_ids(seed)
    changed = ids.clone()
    changed[:, place] = (changed[:, place] + shift) % 16
    before, after = stack(ids), stack(changed)
    assert torch.equal(before[:, :place], after[:, :place])
    assert (before[:, place] - after[:, place]).abs().max() > 1e-6


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), row=st.integers(0, 2))
@torch.no_grad()
def test_rows_do_not_leak(stack: Stack, seed: int, row: int) -> None:
    ids, others = random_ids(seed, batch=3), random_ids(seed + 1000, batch=3)
    others[row] = ids[row]
    state, other_state = stack.run(ids).state, stack.run(others).state
    torch.testing.assert_close(stack(others)[row], stack(ids)[row], atol=1e-12, rtol=0)
    # And through a state that is carried on with other neighbours.
    mixed = StackState.cat([state.select([row]), other_state])
    again = stack(ids[[row, 0, 1, 2]], mixed)
    torch.testing.assert_close(again[0], stack(ids, state)[row], atol=1e-12, rtol=0)


@torch.no_grad()
def test_the_state_matters(stack: Stack) -> None:
    """The laws above would hold for a model without memory: this one has it."""
    ids = random_ids(7)
    state = stack.run(random_ids(8)).state
    assert (stack(ids, state) - stack(ids)).abs()[:, :4].max() > 1e-3


@torch.no_grad()
def test_initial_state_is_none_made_visible(stack: Stack) -> None:
    ids = random_ids(9)
    assert torch.equal(stack(ids, stack.initial_state(2)), stack(ids))
    assert stack.initial_state(2).position == 0


@torch.no_grad()
def test_a_state_is_not_changed_by_what_continues_from_it(stack: Stack) -> None:
    state = stack.run(random_ids(1)).state
    kept = state.clone()
    first = stack(random_ids(2), state)
    stack(random_ids(3), state)
    assert_same_state(state, kept, atol=0)
    assert torch.equal(stack(random_ids(2), state), first)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_saved_state_continues_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    stack = make_stack("reference").to(dtype)
    state = stack.run(random_ids(4)).state
    state.save(tmp_path / "state.safetensors")
    loaded = StackState.load(tmp_path / "state.safetensors")
    assert [layer.conv.dtype for layer in loaded.layers] == [dtype] * 2
    assert loaded.layers[0].scan.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loaded.position == LENGTH
    assert torch.equal(stack(random_ids(5), loaded), stack(random_ids(5), state))


def test_save_does_not_overwrite_unasked(tmp_path: Path) -> None:
    state = make_stack("reference").initial_state(1)
    state.save(tmp_path / "state")
    with pytest.raises(OutputExistsError):
        state.save(tmp_path / "state")
    state.save(tmp_path / "state", force=True)


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x00" * 64])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="Cannot read the state"):
        StackState.load(path)


def test_another_file_and_no_file_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(InputFileError, match="no saved state"):
        StackState.load(tmp_path / "other")
    with pytest.raises(InputFileError, match="Cannot read the state"):
        StackState.load(tmp_path / "nothing")


def numbered(rows: list[int]) -> StackState:
    conv = torch.tensor(rows, dtype=torch.float32)[:, None, None].expand(-1, 3, 4).clone()
    layer = LayerState(conv, conv[:, :1, :2] * 10)
    return StackState((layer, layer), torch.tensor(rows) * 100)


def test_select_and_cat_keep_rows_in_order() -> None:
    both = StackState.cat([numbered([1, 2, 3]), numbered([4])])
    assert both.positions.tolist() == [100, 200, 300, 400]
    picked = both.select([3, 0, 0])
    assert picked.layers[1].conv[:, 0, 0].tolist() == [4, 1, 1]
    assert picked.layers[0].scan[:, 0, 0].tolist() == [40, 10, 10]
    assert picked.positions.tolist() == [400, 100, 100]
    with pytest.raises(ValueError, match="different positions"):
        _ = picked.position
    assert picked.select(torch.tensor([1, 2])).position == 100


def test_clone_shares_no_memory() -> None:
    state = numbered([1])
    copy = state.clone()
    copy.layers[0].conv.fill_(9)
    assert state.layers[0].conv[0, 0, 0] == 1


def test_nbytes_counts_all_and_does_not_grow_with_length() -> None:
    stack = make_stack("reference")
    short, long = (stack.run(random_ids(1, length=length)).state for length in (3, 60))
    assert short.nbytes == long.nbytes == 2 * (2 * (3 * 16 + 16 * 3) * 8 + 8)


def test_gradients_flow_through_a_handed_on_state_and_stop_when_detached() -> None:
    stack = make_stack("reference")
    first = stack.run(random_ids(1))
    stack(random_ids(2), first.state.detach()).sum().backward()
    cut_off = stack.embedding.weight.grad
    assert cut_off is not None
    cut_off = cut_off.clone()
    stack.zero_grad()
    stack(random_ids(2), stack.run(random_ids(1)).state).sum().backward()
    assert (stack.embedding.weight.grad - cut_off).abs().max() > 1e-4


def test_refusals(stack: Stack) -> None:
    with pytest.raises(ValueError, match="no states"):
        StackState.cat([])
    with pytest.raises(ValueError, match="different models"):
        StackState.cat([numbered([1]), StackState((), torch.zeros(1, dtype=torch.int64))])
    with pytest.raises(ShapeError, match="3 rows and input_ids 2"):
        stack(random_ids(1), stack.initial_state(3))
    with pytest.raises(ShapeError, match="1 layers, the model 2"):
        stack(random_ids(1), StackState(stack.initial_state(2).layers[:1], torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ShapeError, match="wanted \\(batch, length\\)"):
        stack(torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(ShapeError, match="wanted \\(batch, length\\)"):
        stack(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ShapeError, match="float32; wanted token ids"):
        stack(torch.zeros(1, 3))

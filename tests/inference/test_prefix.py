"""One reference pass: which entry speaks of which base, and continuing from a stored state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.inference import Branches, continuation_log_probabilities, log_probabilities, prefix_pass
from genossm.models import SequenceModel

LENGTH = 40
ATOL = 2e-5


def random_windows(seed: int, batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def of_base(model: SequenceModel, window: torch.Tensor, base: int) -> torch.Tensor:
    """The distribution of one base from a pass over nothing but what precedes it."""
    before = window[None, :base].long()
    ids = model.prepend_bos(before) if model.begins_with_bos else before
    with torch.no_grad():
        return log_probabilities(model(ids).logits, dtype=torch.float64)[0, -1]


@settings(deadline=None, max_examples=8)
@given(base=st.integers(0, LENGTH), seed=st.integers(0, 99), segment_length=st.integers(7, 70))
def test_entry_i_speaks_of_base_i(model: SequenceModel, base: int, seed: int, segment_length: int) -> None:
    windows = random_windows(seed)
    found = prefix_pass(model, windows, segment_length=segment_length).log_probabilities
    assert found.shape == (2, LENGTH + 1, 4)
    assert found.dtype == torch.float64
    for row in range(2):
        torch.testing.assert_close(found[row, base], of_base(model, windows[row], base), atol=ATOL, rtol=0)


def test_without_bos_the_first_base_has_no_condition(model_without_bos: SequenceModel) -> None:
    windows = random_windows(1)
    found = prefix_pass(model_without_bos, windows, segment_length=17).log_probabilities
    assert found[:, 0].isnan().all()
    assert not found[:, 1:].isnan().any()
    for base in (1, 2, 16, 17, 18, LENGTH):
        torch.testing.assert_close(found[0, base], of_base(model_without_bos, windows[0], base), atol=ATOL, rtol=0)


@settings(deadline=None, max_examples=8)
@given(
    positions=st.lists(st.integers(0, LENGTH), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    bos=st.booleans(),
)
def test_a_branch_equals_a_pass_over_the_whole_alternative(
    model: SequenceModel, model_without_bos: SequenceModel, positions: list[int], seed: int, bos: bool
) -> None:
    chosen = model if bos else model_without_bos
    windows = random_windows(seed)
    reference = prefix_pass(chosen, windows, positions, segment_length=23)
    assert set(reference.states) == set(positions)
    rows = [number % 2 for number in range(len(positions))]
    branches = reference.branch(list(zip(rows, positions)))
    alternatives = random_windows(seed + 500, batch=len(positions), length=12)
    found = continuation_log_probabilities(chosen, branches, alternatives, segment_length=5)
    for number, (row, position) in enumerate(zip(rows, positions)):
        whole = torch.cat([windows[row, :position], alternatives[number]])[None]
        expected = prefix_pass(chosen, whole).log_probabilities[0, position : position + 12]
        torch.testing.assert_close(found[number], expected, atol=ATOL, rtol=0, equal_nan=True)


def test_states_stand_where_they_say(model: SequenceModel, model_without_bos: SequenceModel) -> None:
    windows = random_windows(3)
    for chosen, lead in ((model, 1), (model_without_bos, 0)):
        states = prefix_pass(chosen, windows, [0, 1, 30, LENGTH], segment_length=30).states
        assert {position: state.position - lead for position, state in states.items()} == {
            0: 0, 1: 1, 30: 30, LENGTH: LENGTH,
        }  # fmt: skip


def test_branches_of_several_windows_make_one_batch(model: SequenceModel) -> None:
    passes = [prefix_pass(model, random_windows(seed), [10, 20]) for seed in (1, 2)]
    together = Branches.cat([passes[0].branch([(0, 10)]), passes[1].branch([(1, 20), (0, 10)])])
    ids = random_windows(9, batch=3, length=4)
    found = continuation_log_probabilities(model, together, ids)
    alone = continuation_log_probabilities(model, together.select([2, 1]), ids[[2, 1]])
    torch.testing.assert_close(alone, found[[2, 1]], atol=ATOL, rtol=0)
    assert (found[0] - found[2]).abs().max() > 1e-3


def test_padding_on_the_right_changes_nothing(model: SequenceModel) -> None:
    branches = prefix_pass(model, random_windows(4), [8]).branch([(0, 8), (1, 8)])
    ids = random_windows(5, length=9)
    padded = torch.cat([ids, torch.full((2, 6), 4, dtype=torch.uint8)], 1)
    found = continuation_log_probabilities(model, branches, padded)[:, :9]
    torch.testing.assert_close(found, continuation_log_probabilities(model, branches, ids), atol=ATOL, rtol=0)


def test_one_base_needs_no_pass(model: SequenceModel) -> None:
    reference = prefix_pass(model, random_windows(6), [5])
    found = continuation_log_probabilities(model, reference.branch([(1, 5)]), torch.tensor([[8]]))
    assert torch.equal(found[:, 0], reference.log_probabilities[1:2, 5])


def test_refusals(model: SequenceModel) -> None:
    windows = random_windows(7)
    with pytest.raises(ValueError, match="wanted 0 to 40"):
        prefix_pass(model, windows, [61])
    with pytest.raises(ValueError, match="wanted 0 to 40"):
        prefix_pass(model, windows, [-1, 3])
    reference = prefix_pass(model, windows, [3])
    with pytest.raises(KeyError, match=r"No state was kept at positions \[4\]; there are \[3\]"):
        reference.branch([(0, 3), (1, 4)])
    with pytest.raises(ValueError, match="1 branches and 2 rows"):
        continuation_log_probabilities(model, reference.branch([(0, 3)]), windows)

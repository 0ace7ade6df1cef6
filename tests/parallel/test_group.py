"""Who reads what, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import MethodError, ParallelError
from genossm.models import SequenceModel, StackConfig
from genossm.parallel import ContextGroup, agreed, context_parallel, is_first, shortest_part, spans, summed


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_stretches_follow_one_another_and_differ_by_one_at_most(length: int, ranks: int) -> None:
    found = spans(length, ranks)
    assert [place for span in found for place in range(length)[span]] == list(range(length))
    sizes = [span.stop - span.start for span in found]
    assert len(sizes) == ranks
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_the_first_process_is_known_before_any_have_met(
    variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first


def test_a_process_alone_needs_nobody() -> None:
    figures = torch.tensor([1.0, 2.0])
    assert summed(figures) is figures
    assert agreed(True, figures.device)
    assert not agreed(False, figures.device)
    with pytest.raises(ParallelError, match="has not been started"):
        ContextGroup()


@pytest.fixture
def only_member(tmp_path: Path) -> Iterator[ContextGroup]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield ContextGroup()
    dist.destroy_process_group()


def test_a_group_of_one_and_what_it_refuses(only_member: ContextGroup) -> None:
    model = SequenceModel(StackConfig(d_model=8, n_layer=1, d_conv=5))
    ids = torch.randint(7, 11, (1, 20))
    whole = model(ids, return_state=True)
    with context_parallel(model) as place:
        assert torch.equal(model(place.take(ids)).logits, whole.logits)
        with pytest.raises(MethodError, match="takes no state"):
            model(ids, state=whole.state)
        with pytest.raises(MethodError, match="no state to return from a part"):
            model(ids, return_state=True)
        with pytest.raises(ParallelError, match="has 3 positions and the convolution looks 4 back"):
            model(ids[:, :3])
    assert torch.equal(model(ids, state=whole.state).logits, model(ids, state=whole.state).logits)
    with pytest.raises(ParallelError, match="each needs at least 4"):
        only_member.take(ids[:, :3], shortest=shortest_part(model))
    with pytest.raises(ParallelError, match="1 processes cannot read in groups of 2"):
        ContextGroup.consecutive(2)

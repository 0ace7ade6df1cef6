"""Segments of any length give the same numbers, in bounded memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.core.errors import MemoryEstimateError, MethodError
from genossm.inference import log_probabilities, require_causal, stream, token_log_probabilities
from genossm.models import SequenceModel
from genossm.models import memory as memory_module

LENGTH = 150
# Of design: two ways to the same score agree to 1e-3 nats per 1,024 summed tokens.
NATS_PER_TOKEN = 1e-3 / 1024


def random_ids(seed: int, batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@settings(deadline=None, max_examples=20)
@given(segment_length=st.integers(1, LENGTH + 10), cuts=st.sets(st.integers(-5, LENGTH + 5)), seed=st.integers(0, 99))
def test_any_segments_give_the_whole(model: SequenceModel, segment_length: int, cuts: set[int], seed: int) -> None:
    segment_length = max(segment_length, 10)
    ids = random_ids(seed)
    segments = list(stream(model, ids, segment_length=segment_length, cuts=tuple(cuts)))
    with torch.no_grad():
        whole = model(ids, return_state=True, return_hidden_states=True)
    torch.testing.assert_close(torch.cat([s.hidden for s in segments], 1), whole.hidden_states[-1], atol=2e-5, rtol=0)
    torch.testing.assert_close(torch.cat([s.logits for s in segments], 1), whole.logits, atol=5e-5, rtol=0)
    starts = [segment.start for segment in segments]
    assert starts[0] == 0
    assert all(start == earlier.state.position for start, earlier in zip(starts[1:], segments))
    assert max(segment.logits.shape[1] for segment in segments) <= segment_length
    assert {cut for cut in cuts if 0 < cut < LENGTH} <= set(starts)
    assert segments[-1].state.position == LENGTH


def test_sums_agree_to_the_tolerance_of_scores(model: SequenceModel) -> None:
    ids = random_ids(1, batch=1, length=4096)

    def total(segment_length: int) -> float:
        logits = torch.cat([segment.logits for segment in stream(model, ids, segment_length=segment_length)], 1)
        log_probs = log_probabilities(logits[:, :-1], dtype=torch.float64)
        return token_log_probabilities(log_probs, ids[:, 1:])[0].sum().item()

    expected = total(4096)
    for segment_length in (37, 1000, 4095):
        assert abs(total(segment_length) - expected) < NATS_PER_TOKEN * 4096
    assert expected < -1000


def test_state_continues_from_what_came_before(model: SequenceModel) -> None:
    ids = random_ids(2)
    (first,) = stream(model, ids[:, :60])
    (rest,) = stream(model, ids[:, 60:], state=first.state)
    (whole,) = stream(model, ids)
    torch.testing.assert_close(rest.logits, whole.logits[:, 60:], atol=5e-5, rtol=0)
    assert rest.start == 0
    assert rest.state.position == LENGTH


def test_callers_keep_their_gradients(model: SequenceModel) -> None:
    """Inference mode ends at every segment: what the caller does between two is still recorded."""
    for segment in stream(model, random_ids(3), segment_length=50):
        assert not segment.logits.requires_grad
        weight = torch.ones(1, requires_grad=True)
        assert (weight * 2).requires_grad


def test_segments_are_what_has_to_fit(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_SMALL", 0)
    monkeypatch.setattr(memory_module, "available_bytes", lambda _: memory_module.inference_bytes(model.config, 2, 50))
    ids = random_ids(4)
    assert len(list(stream(model, ids, segment_length=50))) == 3
    with pytest.raises(MemoryEstimateError):
        next(stream(model, ids, segment_length=51))


def test_refusals(model: SequenceModel) -> None:
    with pytest.raises(ValueError, match="segment_length is 0"):
        next(stream(model, random_ids(1), segment_length=0))
    both_ways = SimpleNamespace(config=SimpleNamespace(direction="bidirectional"), objective="masked")
    with pytest.raises(MethodError, match="this one is bidirectional with the objective 'masked'"):
        require_causal(both_ways)  # type: ignore[arg-type]

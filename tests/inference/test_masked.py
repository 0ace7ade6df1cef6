"""Hidden bases and mean hidden states, against the model's own outputs one window at a time."""

from __future__ import annotations

import re

import pytest
import torch

from genossm.core.errors import MethodError
from genossm.inference import embedding, masked_log_probabilities, mean_hidden_states
from genossm.models import SequenceModel, StackConfig
from genossm.testing.models import enliven


@pytest.fixture(scope="module")
def masked_model() -> SequenceModel:
    torch.manual_seed(0)
    config = StackConfig(16, 2, direction="bidirectional", objective="masked", reverse_complement="equivariant")
    return enliven(SequenceModel(config), 1).eval()


def windows(rows: int, length: int) -> torch.Tensor:
    return torch.randint(7, 11, (rows, length), generator=torch.Generator().manual_seed(rows), dtype=torch.uint8)


@torch.inference_mode()
def test_masked_places_in_their_order(masked_model: SequenceModel) -> None:
    ids, masked = windows(3, 40), torch.zeros(3, 40, dtype=torch.bool)
    masked[0, 5] = masked[2, 0] = masked[2, 17:19] = True
    found = masked_log_probabilities(masked_model, ids, masked)
    hidden = ids.clone()
    hidden[masked] = 3
    wanted = torch.stack(
        [
            torch.log_softmax(masked_model(hidden[[row]].long()).logits[0, place, 7:11].double(), dim=0)
            for row, place in ((0, 5), (2, 0), (2, 17), (2, 18))
        ]
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4, dtype=torch.float64))


def test_what_a_mask_hides_is_not_seen(masked_model: SequenceModel) -> None:
    ids, masked = windows(1, 30), torch.zeros(1, 30, dtype=torch.bool)
    masked[0, 11] = True
    other = ids.clone()
    other[0, 11] = 7 + (int(ids[0, 11]) - 6) % 4
    assert torch.equal(*(masked_log_probabilities(masked_model, one, masked) for one in (ids, other)))


def test_a_causal_model_has_never_seen_a_mask(model: SequenceModel) -> None:
    with pytest.raises(MethodError, match="never seen"):
        masked_log_probabilities(model, windows(1, 8), torch.ones(1, 8, dtype=torch.bool))


@torch.inference_mode()
def own_states(model: SequenceModel, ids: torch.Tensor) -> torch.Tensor:
    lead = int(model.begins_with_bos)
    states = model(model.prepend_bos(ids) if lead else ids, return_hidden_states=True).hidden_states
    assert states is not None
    return states[-1][0, lead:].double()


@pytest.mark.parametrize("kind", ["model", "model_without_bos", "masked_model"])
def test_means_of_what_the_head_reads(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = request.getfixturevalue(kind)
    # Pieces so short that spans begin, end and lie in any of them.
    monkeypatch.setattr(embedding, "SEGMENT_LENGTH", 16)
    if tried.config.direction == "causal":
        whole = embedding.stream
        monkeypatch.setattr(embedding, "stream", lambda model, ids: whole(model, ids, segment_length=16))
    ids = windows(2, 50)
    spans = [[(0, 50), (3, 4), (15, 33)], [(49, 50)]]
    found = mean_hidden_states(tried, ids, spans)
    for row, of_row in enumerate(spans):
        states = own_states(tried, ids[[row]])
        wanted = torch.stack([states[first:last].mean(dim=0) for first, last in of_row])
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-5)


def test_spans_have_to_lie_in_their_windows(masked_model: SequenceModel) -> None:
    for spans in ([], [[(0, 2)], [(0, 2)]]):
        with pytest.raises(ValueError, match="rows of spans"):
            mean_hidden_states(masked_model, windows(1, 8), spans)
    for span, fault in (
        ((0, 9), "leaves the window, which has 8 bases"),
        ((0, 0), "is empty"),
        ((5, 3), "ends before it begins"),
        ((-2, 5), "begins before the window"),
    ):
        with pytest.raises(ValueError, match=rf"Span {re.escape(str(span))} of row 1 {fault}; wanted 0 <= first"):
            mean_hidden_states(masked_model, windows(2, 8), [[(0, 2)], [(0, 1), span]])

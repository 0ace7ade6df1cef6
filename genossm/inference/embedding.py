"""Mean hidden states of stretches of a window, as embedding distances compare them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from genossm.inference.streaming import SEGMENT_LENGTH, stream
from genossm.models import SequenceModel
from genossm.models.memory import require_memory


@torch.inference_mode()
def mean_hidden_states(
    model: SequenceModel, input_ids: Int[Tensor, "batch length"], spans: Sequence[Sequence[tuple[int, int]]]
) -> list[Float64[Tensor, "spans d_model"]]:
    """Means, over stretches of bases, of the hidden states that the head reads; one tensor a row, on the CPU.

    input_ids: windows of bases, without [BOS], which the model sees where it begins with it and which is in no mean.
    spans: for every row its stretches `(first, last)`, 0-based half-open, of at least one base each.
    A causal model runs in segments; memory does not grow with its window.
    Raises: ValueError for rows without spans of their own, or an empty span; MemoryEstimateError.
    """
    if len(spans) != len(input_ids) or any(not 0 <= a < b <= input_ids.shape[1] for row in spans for a, b in row):
        raise ValueError(f"{len(spans)} rows of spans for ids of {tuple(input_ids.shape)}, or a span outside of them.")
    sums = [torch.zeros(len(row), model.config.d_model, dtype=torch.float64) for row in spans]
    for start, hidden in _pieces(model, input_ids):
        for row, of_row in enumerate(spans):
            for number, (first, last) in enumerate(of_row):
                inside = hidden[row, max(0, first - start) : max(0, last - start)]
                if len(inside):
                    sums[row][number] += inside.sum(dim=0, dtype=torch.float64).cpu()
    lengths = (torch.tensor([[last - first] for first, last in row], dtype=torch.float64) for row in spans)
    return [total / length.view(-1, 1) for total, length in zip(sums, lengths)]


def _pieces(model: SequenceModel, input_ids: Tensor) -> Iterator[tuple[int, Tensor]]:
    """`(base that it begins at, hidden states (batch, length, d_model))`; [BOS] stands at base -1."""
    if model.config.direction == "causal":
        lead = int(model.begins_with_bos)
        for segment in stream(model, model.prepend_bos(input_ids) if lead else input_ids):
            yield segment.start - lead, segment.hidden
        return
    batch, length = input_ids.shape
    require_memory(model.config, batch, length, model.head.weight)
    hidden = model.backbone(input_ids.to(model.device))
    for start in range(0, length, SEGMENT_LENGTH):
        yield start, hidden[:, start : start + SEGMENT_LENGTH]

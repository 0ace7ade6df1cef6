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
    Raises: ValueError for rows without spans of their own, or a span that is empty or leaves its window, naming it;
    MemoryEstimateError.
    """
    if len(spans) != len(input_ids):
        raise ValueError(f"{len(spans)} rows of spans for ids of {tuple(input_ids.shape)}; wanted one a row of ids.")
    for number, of_row in enumerate(spans):
        for first, last in of_row:
            _require_inside(number, first, last, input_ids.shape[1])
    sums = [torch.zeros(len(row), model.config.d_model, dtype=torch.float64) for row in spans]
    for start, hidden in _pieces(model, input_ids):
        for row, of_row in enumerate(spans):
            for number, (first, last) in enumerate(of_row):
                inside = hidden[row, max(0, first - start) : max(0, last - start)]
                if len(inside):
                    sums[row][number] += inside.sum(dim=0, dtype=torch.float64).cpu()
    lengths = (torch.tensor([[last - first] for first, last in row], dtype=torch.float64) for row in spans)
    return [total / length.view(-1, 1) for total, length in zip(sums, lengths)]


def _require_inside(row: int, first: int, last: int, length: int) -> None:
    if 0 <= first < last <= length:
        return
    fault = (
        "begins before the window" if first < 0
        else "is empty" if first == last
        else "ends before it begins" if last < first
        else f"leaves the window, which has {length:,} bases"
    )  # fmt: skip
    raise ValueError(
        f"Span ({first}, {last}) of row {row} {fault}; wanted 0 <= first < last <= {length} (0-based, last not "
        "included)."
    )


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

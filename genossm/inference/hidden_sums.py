"""Hidden states of stretches of a window that has been read before: one pass over the reference serves all of them.

A stretch is entered with the states that the reference has there. In a causal model that is exact as far as the stretch
goes; in one that reads both ways, what a change does outside of it, and what of that comes back, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from genossm.inference.streaming import stream
from genossm.models import SequenceModel, StackState
from genossm.models.memory import require_memory, require_sweep_memory
from genossm.nn.boundaries import SWEEP_SEGMENT, Edges, run_between, sweep, sweep_and_sum

Stretch = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ReadReference:
    """What a pass over a window leaves.   total: (d_model,) of the hidden states of all its bases, if asked for.
    edges: of a model that reads both ways.   prefixes: of a causal one, place to state.
    """

    total: Float64[Tensor, " d_model"] | None
    edges: Edges | None = None
    prefixes: Mapping[int, StackState] = field(default_factory=dict)


@torch.inference_mode()
def read_reference(
    model: SequenceModel, input_ids: Int[Tensor, " length"], stretches: Sequence[Stretch], *, total: bool
) -> ReadReference:
    """Read a window of bases once, without [BOS], and keep what `hidden_sums` needs to run stretches of it.

    Raises: MemoryEstimateError.
    """
    if model.config.direction == "causal":
        return _read_causal(model, input_ids, stretches)
    require_sweep_memory(model.config, len(input_ids), SWEEP_SEGMENT, model.head.weight)
    places = {first for first, _ in stretches}, {last for _, last in stretches}
    ids = input_ids[None].to(model.device)
    if not total:
        return ReadReference(None, sweep(model.backbone, ids, *places))
    edges, summed = sweep_and_sum(model.backbone, ids, *places)
    return ReadReference(summed.cpu(), edges)


def _read_causal(model: SequenceModel, input_ids: Tensor, stretches: Sequence[Stretch]) -> ReadReference:
    lead = int(model.begins_with_bos)
    ids = model.prepend_bos(input_ids[None]) if lead else input_ids[None]
    keep = {first + lead: [0] for first, _ in stretches if first + lead}
    prefixes = {} if lead else {0: model.backbone.initial_state(1)}
    summed = torch.zeros(model.config.d_model, dtype=torch.float64, device=model.device)
    for segment in stream(model, ids, keep=keep):
        summed += segment.hidden[0, max(0, lead - segment.start) :].sum(dim=0, dtype=torch.float64)
        prefixes.update({place - lead: state for place, state in segment.kept.items()})
    return ReadReference(summed.cpu(), prefixes=prefixes)


@torch.inference_mode()
def hidden_sums(
    model: SequenceModel,
    reference: ReadReference,
    input_ids: Int[Tensor, "batch length"],
    stretches: Sequence[Stretch],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> list[Float64[Tensor, "spans d_model"]]:
    """Sums of the hidden states that the head reads, over spans of rows that stand where the reference has `stretches`.

    input_ids: of bases, which may be others, and more or fewer, than the reference's.   spans: of every row, counted
    from its beginning, 0-based half-open.
    Raises: KeyError for a stretch that `read_reference` was not told of; MemoryEstimateError.
    """
    batch, length = input_ids.shape
    require_memory(model.config, batch, length, model.head.weight)
    hidden = _hidden(model, reference, input_ids.to(model.device), stretches)
    sums = [
        hidden[row, first:last].sum(dim=0, dtype=torch.float64)
        for row, of_row in enumerate(spans)
        for first, last in of_row
    ]
    # One copy from the device, not one a span.
    return list(torch.stack(sums).cpu().split([len(of_row) for of_row in spans]))


def _hidden(
    model: SequenceModel, reference: ReadReference, ids: Tensor, stretches: Sequence[Stretch]
) -> Float[Tensor, "batch length d_model"]:
    if reference.edges is not None:
        return run_between(model.backbone, ids, reference.edges.between(stretches))
    state = StackState.cat([reference.prefixes[first] for first, _ in stretches])
    return model.backbone.run(ids, state).last_hidden

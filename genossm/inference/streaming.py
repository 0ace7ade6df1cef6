"""Long windows in segments: the same numbers as in one pass, in memory that does not grow with the window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genossm.core.errors import MethodError
from genossm.models import SequenceModel, StackState
from genossm.models.memory import require_memory
from genossm.nn.boundaries import run_keeping

# Long enough that what a segment costs once is nothing beside its tokens, short enough for a laptop.
SEGMENT_LENGTH = 1 << 14


@dataclass(frozen=True, eq=False)
class Segment:
    """Tokens `start` to `start + length` of what is streamed.

    hidden: the last hidden states.   logits: entry t speaks of the token after it, so that the last entry speaks of
    the first token of the next segment.   state: after the segment's last token.
    kept: offset to the state there, for those that were asked for and lie in the segment.
    """

    start: int
    hidden: Float[Tensor, "batch length d_model"]
    logits: Float[Tensor, "batch length vocab"]
    state: StackState
    kept: Mapping[int, StackState] = field(default_factory=dict)


def stream(
    model: SequenceModel,
    input_ids: Int[Tensor, "batch length"],
    *,
    state: StackState | None = None,
    segment_length: int = SEGMENT_LENGTH,
    cuts: tuple[int, ...] = (),
    keep: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[Segment]:
    """Read `input_ids` segment by segment, handing the state on. Nothing is added: put [BOS] in front yourself.

    input_ids: on any device; each segment is moved to the model's.
    state: what came before; None is the beginning.
    cuts: offsets at which a segment has to end besides, to see the state there.
    keep: offsets from 1 on, and the rows whose states are wanted there; cheaper than cuts, where there are many.
    Raises: MethodError for a model that reads both ways (it has no state from left to right).
    """
    require_causal(model)
    if segment_length < 1:
        raise ValueError(f"segment_length is {segment_length}; wanted at least 1.")
    length = input_ids.shape[1]
    ends = sorted({*range(segment_length, length, segment_length), *(cut for cut in cuts if 0 < cut < length), length})
    wanted = sorted((keep or {}).items())
    start = done = 0
    for end in ends:
        first = done
        while done < len(wanted) and wanted[done][0] <= end:
            done += 1
        segment = _run(model, input_ids[:, start:end].to(model.device), state, start, dict(wanted[first:done]))
        yield segment
        start, state = end, segment.state


# As a decorator of a whole function: a context held open across a `yield` would leak into the caller.
@torch.inference_mode()
def _run(
    model: SequenceModel, ids: Tensor, state: StackState | None, start: int, keep: Mapping[int, Sequence[int]]
) -> Segment:
    require_memory(model.config, ids.shape[0], ids.shape[1], model.head.weight)
    if keep:
        found = run_keeping(model.backbone, ids, state, {place - start: rows for place, rows in keep.items()})
        kept = {place + start: one for place, one in found.states.items()}
        return Segment(start, found.last_hidden, model.head(found.last_hidden), found.state, kept)
    output = model.backbone.run(ids, state)
    assert output.state is not None  # the model is causal
    return Segment(start, output.last_hidden, model.head(output.last_hidden), output.state)


def require_causal(model: SequenceModel) -> None:
    """Raise MethodError unless the model reads from left to right and predicts the next token."""
    if model.config.direction != "causal" or model.objective != "causal":
        raise MethodError(
            f"This needs a causal model; this one is {model.config.direction} with the objective {model.objective!r}. "
            "It has no state that could be handed from left to right."
        )

"""Models that read both ways, run on a neighbourhood of what changes: one pass over the reference serves all of them.

A neighbourhood is entered with the states that the reference has at its ends, in every layer and either direction. What
a change does outside of it, and what of that comes back through later layers, is left out: the wider, the less.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from genossm.core.errors import MethodError
from genossm.inference.masked import require_masked
from genossm.inference.probabilities import log_probabilities
from genossm.models import SequenceModel
from genossm.models.memory import require_memory, require_sweep_memory
from genossm.nn import LayerState
from genossm.nn.boundaries import SWEEP_SEGMENT, Edges, run_between, sweep


def boundary_states(
    model: SequenceModel,
    input_ids: Int[Tensor, " length"],
    left: Iterable[int],
    right: Iterable[int],
    *,
    segment_length: int = SWEEP_SEGMENT,
) -> Edges:
    """Read a reference once and keep the states at all places where a neighbourhood begins (left) or ends (right).

    input_ids: the whole window, without [BOS] or [SEP].   left, right: 0 to length.
    Memory is that of two residual streams and one segment's activations, whatever the number of layers.
    Raises: MethodError for a model that reads one way; MemoryEstimateError.
    """
    if model.config.direction != "bidirectional":
        raise MethodError(
            "Boundary states are for models that read both ways; a causal one continues from its own states (stream)."
        )
    require_sweep_memory(model.config, len(input_ids), segment_length, model.head.weight)
    return sweep(model.backbone, input_ids[None].to(model.device), left, right, segment_length=segment_length)


@torch.inference_mode()
def masked_log_probabilities_between(
    model: SequenceModel,
    input_ids: Int[Tensor, "batch length"],
    masked: Bool[Tensor, "batch length"],
    states: tuple[tuple[LayerState, ...], ...],
) -> Float64[Tensor, "places 4"]:
    """As `masked_log_probabilities`, for neighbourhoods that are entered with `states`, of `Edges.between`.

    Raises: MethodError for a model that is not masked; MemoryEstimateError if the batch cannot fit in memory.
    """
    require_masked(model)
    batch, length = input_ids.shape
    require_memory(model.config, batch, length, model.head.weight)
    ids = input_ids.to(model.device)
    places = masked.to(model.device)
    hidden = run_between(model.backbone, ids.masked_fill(places, model.tokenizer.mask_id), states)
    return log_probabilities(model.head(hidden[places]), base_ids=model.tokenizer.base_ids, dtype=torch.float64)

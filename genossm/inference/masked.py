"""What a masked model says of hidden bases."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from genossm.core.errors import MethodError
from genossm.inference.probabilities import log_probabilities
from genossm.models import SequenceModel
from genossm.models.memory import require_memory, require_sweep_memory
from genossm.nn.boundaries import SWEEP_SEGMENT, swept_hidden

_LONG = 1 << 21


@torch.inference_mode()
def masked_log_probabilities(
    model: SequenceModel, input_ids: Int[Tensor, "batch length"], masked: Bool[Tensor, "batch length"]
) -> Float64[Tensor, "places 4"]:
    """ln p of A, C, G and T at every masked place, from one pass in which all of them read [MASK].

    input_ids: whole windows, without [BOS] or [SEP]; what stands at masked places is not looked at.
    The result goes row by row, from left to right. Logits are made for these places alone, whatever the window.
    Windows of over two million bases are read layer by layer in segments, in memory of two residual streams.
    Raises: MethodError for a model that is not masked; MemoryEstimateError if the batch cannot fit in memory.
    """
    require_masked(model)
    batch, length = input_ids.shape
    places = masked.to(model.device)
    ids = input_ids.masked_fill(masked, model.tokenizer.mask_id).to(model.device)
    if length > _LONG:
        require_sweep_memory(model.config, length, SWEEP_SEGMENT, model.head.weight)
        hidden = torch.cat([swept_hidden(model.backbone, ids[i : i + 1], places[i]) for i in range(batch)])
    else:
        require_memory(model.config, batch, length, model.head.weight)
        hidden = model.backbone(ids)[places]
    return log_probabilities(model.head(hidden), base_ids=model.tokenizer.base_ids, dtype=torch.float64)


def require_masked(model: SequenceModel) -> None:
    """Raise MethodError unless the model predicts what [MASK] hides."""
    if model.objective != "masked":
        raise MethodError(
            f"This needs a masked model; this one has the objective {model.objective!r}, and has never seen [MASK]."
        )

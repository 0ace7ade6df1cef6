"""What a masked model says of hidden bases."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from genossm.core.errors import MethodError
from genossm.inference.probabilities import log_probabilities
from genossm.models import SequenceModel
from genossm.models.memory import require_memory


@torch.inference_mode()
def masked_log_probabilities(
    model: SequenceModel, input_ids: Int[Tensor, "batch length"], masked: Bool[Tensor, "batch length"]
) -> Float64[Tensor, "places 4"]:
    """ln p of A, C, G and T at every masked place, from one pass in which all of them read [MASK].

    input_ids: whole windows, without [BOS] or [SEP]; what stands at masked places is not looked at.
    The result goes row by row, from left to right. Logits are made for these places alone, whatever the window.
    Raises: MethodError for a model that is not masked; MemoryEstimateError if the batch cannot fit in memory.
    """
    require_masked(model)
    batch, length = input_ids.shape
    require_memory(model.config, batch, length, model.head.weight)
    ids = input_ids.masked_fill(masked, model.tokenizer.mask_id).to(model.device)
    hidden = model.backbone(ids)[masked.to(model.device)]
    return log_probabilities(model.head(hidden), base_ids=model.tokenizer.base_ids, dtype=torch.float64)


def require_masked(model: SequenceModel) -> None:
    """Raise MethodError unless the model predicts what [MASK] hides."""
    if model.objective != "masked":
        raise MethodError(
            f"This needs a masked model; this one has the objective {model.objective!r}, and has never seen [MASK]."
        )

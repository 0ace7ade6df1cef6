"""The mean over both strands, for models that do not read both by construction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genossm.core.errors import MethodError
from genossm.inference.probabilities import log_probabilities
from genossm.models import SequenceModel


@torch.inference_mode()
def both_strand_log_probabilities(
    model: SequenceModel, input_ids: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch length 4"]:
    """ln of the mean of both strands' probabilities of A, C, G, T at every position of a masked model, in float64.

    The minus strand's are those of the reverse complement, read back into the order and letters of the input. The
    result for the reverse complement of `input_ids` is the reverse complement of the result, whatever the model.
    Raises: MethodError for a causal model: its two strands stand under different conditions at every position (sum
    scores of whole sequences over both strands instead).
    """
    if model.objective != "masked":
        raise MethodError(
            "A causal model predicts a base from what precedes it, and the minus strand from what follows: position by "
            "position they have no mean. Score whole alleles on both strands instead."
        )
    complement = torch.tensor(model.tokenizer.complement_ids, dtype=torch.int64, device=input_ids.device)
    minus_ids = complement[input_ids.long()].flip(1)
    base_ids = model.tokenizer.base_ids
    plus = log_probabilities(model(input_ids).logits, base_ids=base_ids, dtype=torch.float64)
    minus = log_probabilities(model(minus_ids).logits, base_ids=base_ids, dtype=torch.float64)
    # Bases stand in the order A, C, G, T, so that the complement is the opposite order.
    return torch.logsumexp(torch.stack([plus, minus.flip(1, 2)]), dim=0) - torch.log(plus.new_tensor(2.0))

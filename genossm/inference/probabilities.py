"""From logits to the probabilities of bases, as every score and metric of the package reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genossm.sequence import NucleotideTokenizer


def log_probabilities(
    logits: Float[Tensor, "*any vocab"],
    *,
    base_ids: Sequence[int] = NucleotideTokenizer.base_ids,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*any 4"]:
    """Natural logarithm of the softmax over the logits of A, C, G and T alone.

    Entry t of a causal model's logits speaks of the token AFTER t: the result is not shifted.
    dtype: what the softmax is computed and returned in; sums of many entries want float64.
    """
    first, last = base_ids[0], base_ids[-1]
    if tuple(base_ids) == tuple(range(first, last + 1)):
        bases = logits[..., first : last + 1]
    else:
        bases = logits[..., list(base_ids)]
    return torch.log_softmax(bases, dim=-1, dtype=dtype)


def token_log_probabilities(
    log_probs: Float[Tensor, "*any 4"],
    targets: Int[Tensor, "*any"],
    *,
    base_ids: Sequence[int] = NucleotideTokenizer.base_ids,
) -> tuple[Float[Tensor, "*any"], Bool[Tensor, "*any"]]:
    """ln p of every target, and which of them count.

    log_probs: entry t speaks of `targets[..., t]` (shift a causal model's first).
    targets: token ids. Anything but A, C, G, T, and any base without a condition (NaN), counts 0 and is marked False.
    """
    index = torch.full_like(targets, -1, dtype=torch.int64)
    for number, base in enumerate(base_ids):
        index[targets == base] = number
    picked = log_probs.gather(-1, index.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    counts = (index >= 0) & ~torch.isnan(picked)
    return torch.where(counts, picked, torch.zeros_like(picked)), counts

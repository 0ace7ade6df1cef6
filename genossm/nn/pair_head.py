"""One number from a pair of windows, reference and alternative."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PairHead(nn.Module):
    """Linear in the difference of ALT's and REF's mean hidden states, and in REF's; 0 before it has learnt anything."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.difference = nn.Parameter(torch.zeros(d_model))
        self.reference = nn.Parameter(torch.zeros(d_model))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self, reference: Float[Tensor, "batch d_model"], alternative: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, " batch"]:
        """reference, alternative: mean hidden states around the allele."""
        return (alternative - reference) @ self.difference + reference @ self.reference + self.bias

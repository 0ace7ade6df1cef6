"""Heads: from hidden states to what is predicted."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary, from weights of its own or those of the embedding.

    Source: Press & Wolf 2017 for the shared weights.
    """

    def __init__(self, embedding: nn.Embedding, *, tied: bool) -> None:
        super().__init__()
        if tied:
            self.weight = embedding.weight
        else:
            self.weight = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False).weight

    def forward(self, hidden: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any vocab"]:
        """Logits before softmax, in the dtype of the weights (or of autocast)."""
        return F.linear(hidden.to(self.weight.dtype), self.weight)

"""Heads: from hidden states to what is predicted."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary, from weights of its own or those of the embedding.

    complement: id of the complement of every id, for hidden states of both strands; None for one strand.
    Source: Press & Wolf 2017 for the shared weights; Schiff et al. 2024, "Caduceus", section 4.3 for both strands.
    """

    complement: Int[Tensor, " vocab"] | None

    def __init__(self, embedding: nn.Embedding, *, tied: bool, complement: Int[Tensor, " vocab"] | None = None) -> None:
        super().__init__()
        if tied:
            self.weight = embedding.weight
        else:
            self.weight = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False).weight
        self.register_buffer("complement", complement, persistent=False)

    def forward(self, hidden: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any vocab"]:
        """Logits before softmax, in the dtype of the weights (or of autocast).

        With both strands, a base's logit is the sum of its own by the plus strand and of its complement's by the minus.
        """
        hidden = hidden.to(self.weight.dtype)
        if self.complement is None:
            return F.linear(hidden, self.weight)
        plus, minus = hidden.chunk(2, dim=-1)
        return F.linear(plus, self.weight) + F.linear(minus.flip(-1), self.weight[self.complement])

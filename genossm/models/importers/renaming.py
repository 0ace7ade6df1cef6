"""What the layouts share about names."""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.core.errors import ModelFormatError


def drop_tied_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without `head.weight`, which a file of tied weights may hold as a copy of the embedding.

    Raises: ModelFormatError if it is there and no copy, so that the configuration's `tied` is untrue.
    """
    head, embedding = tensors.get("head.weight"), tensors.get("backbone.embedding.weight")
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ModelFormatError(
            "The configuration says that head and embedding share their weights, and the file holds two that differ. "
            "Correct tie_embeddings (tie_word_embeddings) in config.json."
        )
    return {name: tensor for name, tensor in tensors.items() if name != "head.weight"}

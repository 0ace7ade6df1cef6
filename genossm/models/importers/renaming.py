"""What the layouts share about names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genossm.core.errors import ModelFormatError


def drop_copies(tensors: Mapping[str, Tensor], copies: Mapping[str, str]) -> dict[str, Tensor]:
    """Without tied tensors, which a file may hold as copies of another.

    copies: name of the copy to name of the original.
    Raises: ModelFormatError if one is there and no copy, so that the configuration's tie is untrue.
    """
    differing = [
        f"{copy} and {original}"
        for copy, original in copies.items()
        if copy in tensors and original in tensors and not torch.equal(tensors[copy], tensors[original])
    ]
    if differing:
        raise ModelFormatError(
            f"The configuration says that weights are shared; the file holds two that differ: {', '.join(differing)}. "
            "Correct the tie in config.json (tie_embeddings, tie_word_embeddings, bidirectional_weight_tie)."
        )
    return {name: tensor for name, tensor in tensors.items() if name not in copies}

"""Windows to tensors: what goes into the model and what it has to predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from genossm.data.dataset import WindowItem
from genossm.sequence.interval import Interval
from genossm.sequence.tokenizer import NucleotideTokenizer

# A position that is no target: cross-entropy's own default.
IGNORE = -100


@dataclass(frozen=True, eq=False)
class Batch:
    """input_ids: token ids. targets: 0..3 for the base A, C, G, T to predict there, IGNORE where there is none.

    intervals: where each row stands on the genome, so that an error can name it.
    weights: what each target counts; None if all count alike.
    """

    input_ids: UInt8[Tensor, "batch length"]
    targets: Int64[Tensor, "batch length"]
    intervals: tuple[Interval, ...]
    weights: Float32[Tensor, "batch length"] | None = field(default=None, kw_only=True)

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """The batch on another device; Lightning calls this."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def total_weight(self) -> Tensor:
        """What the targets count together: their number, if none is weighted."""
        known = self.targets != IGNORE
        return known.sum() if self.weights is None else (self.weights * known).sum()

    def split(self, rows: int) -> tuple[Batch, ...]:
        """The batch in parts of at most so many rows, in order."""
        parts = [slice(first, first + rows) for first in range(0, len(self.input_ids), rows)]
        return tuple(
            replace(self._each(lambda tensor, part=part: tensor[part]), intervals=self.intervals[part])
            for part in parts
        )

    def stretch(self, span: slice) -> Batch:
        """The same rows, of which only the positions of `span` are read and predicted."""
        return self._each(lambda tensor: tensor[:, span])

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's loader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with tensors changed alike."""
        weights = None if self.weights is None else change(self.weights)
        return replace(self, input_ids=change(self.input_ids), targets=change(self.targets), weights=weights)


def base_targets(tokenizer: NucleotideTokenizer) -> NDArray[np.int64]:
    """(256,) the target of every token id: 0..3 for A, C, G, T, IGNORE for all others."""
    target_of = np.full(256, IGNORE, np.int64)
    target_of[list(tokenizer.base_ids)] = range(4)
    return target_of


class CausalCollator:
    """Input [BOS] x_1 ... x_{L-1}, target x_1 ... x_L; letters other than A, C, G, T are inputs, never targets."""

    def __init__(self, tokenizer: NucleotideTokenizer) -> None:
        self._targets = base_targets(tokenizer)

    def __call__(self, items: Sequence[WindowItem]) -> Batch:
        """Stack windows of one length, each with [BOS] in front. Raises: ValueError if lengths differ."""
        ids = np.stack([item.ids for item in items])
        return Batch(
            torch.from_numpy(np.ascontiguousarray(ids[:, :-1])),
            torch.from_numpy(self._targets[ids[:, 1:]]),
            tuple(item.interval for item in items),
            weights=stacked_weights(items),
        )


def stacked_weights(items: Sequence[WindowItem]) -> Float32[Tensor, "batch length"] | None:
    """Weights of the items' bases; None if they have none."""
    weights = [item.weights for item in items if item.weights is not None]
    return torch.from_numpy(np.stack(weights)) if weights else None

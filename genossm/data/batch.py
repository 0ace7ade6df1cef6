"""Windows to tensors: what goes into the model and what it has to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
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
    """

    input_ids: UInt8[Tensor, "batch length"]
    targets: Int64[Tensor, "batch length"]
    intervals: tuple[Interval, ...]

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """The batch on another device; Lightning calls this."""
        return replace(self, input_ids=self.input_ids.to(*args, **kwargs), targets=self.targets.to(*args, **kwargs))

    def split(self, rows: int) -> tuple[Batch, ...]:
        """The batch in parts of at most so many rows, in order."""
        firsts = range(0, len(self.input_ids), rows)
        return tuple(
            Batch(self.input_ids[i : i + rows], self.targets[i : i + rows], self.intervals[i : i + rows])
            for i in firsts
        )

    def stretch(self, span: slice) -> Batch:
        """The same rows, of which only the positions of `span` are read and predicted."""
        return replace(self, input_ids=self.input_ids[:, span], targets=self.targets[:, span])

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's loader calls this."""
        return replace(self, input_ids=self.input_ids.pin_memory(), targets=self.targets.pin_memory())


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
        )

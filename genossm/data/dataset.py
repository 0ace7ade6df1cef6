"""Windows of a genome as token ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genossm.data.soft_mask import SoftMaskWeights
from genossm.data.windows import WindowPlan
from genossm.sequence.interval import Interval
from genossm.sequence.tokenizer import NucleotideTokenizer

if TYPE_CHECKING:
    from genossm.genome import Genome


@dataclass(frozen=True, eq=False)
class WindowItem:
    """ids: [BOS] and one token a base, in reading direction of `interval` (reverse complement on "-"), then N where the
    interval is shorter than the window.

    sample: the number that the window was asked for by, from which everything random about it follows.
    weights: what each base counts as a target, in reading direction; None if all count alike.
    """

    ids: NDArray[np.uint8]
    interval: Interval
    sample: int
    weights: NDArray[np.float32] | None = field(default=None, kw_only=True)


class WindowDataset(Dataset[WindowItem]):
    """Item n is the window that the plan gives sample number n; n may pass `len`, which is one epoch.

    soft_mask: what soft-masked bases count; None if all bases count alike.
    The genome re-opens itself in every worker process, so no file handle is shared.
    """

    def __init__(
        self,
        genome: Genome,
        plan: WindowPlan,
        tokenizer: NucleotideTokenizer,
        soft_mask: SoftMaskWeights | None = None,
    ) -> None:
        self.genome, self.plan, self.tokenizer, self.soft_mask = genome, plan, tokenizer, soft_mask

    def __len__(self) -> int:
        return self.plan.epoch_size

    def __getitem__(self, index: int) -> WindowItem:
        interval = self.plan.interval(index)
        ids = np.empty(self.plan.length(index) + 1, np.uint8)
        ids[0] = self.tokenizer.bos_id
        self.genome.encode(interval, self.tokenizer, out=ids[1 : len(interval) + 1])
        ids[len(interval) + 1 :] = self.tokenizer.n_id
        weights = None if self.soft_mask is None else self.soft_mask.along(interval, len(ids) - 1)
        return WindowItem(ids, interval, index, weights=weights)

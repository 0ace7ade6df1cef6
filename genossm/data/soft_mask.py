"""Weights of targets by the reference's soft-mask: lower-case bases, mostly repeats, may count less in training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genossm.genome.runs import overlapping
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

logger = logging.getLogger(__name__)


class SoftMaskWeights:
    """What each base of an interval counts: `weight` where it is soft-masked, else 1.

    It is logged as a warning if no base of the genome is soft-masked: many references come without.
    """

    def __init__(self, genome: Genome, weight: float) -> None:
        self.genome, self.weight = genome, weight
        if not any(len(genome.soft_mask(contig)) for contig in genome.contigs):
            logger.warning(
                "soft_mask_weight is %g, but %s has no soft-masked (lower-case) base, so every base counts alike. "
                "Take a reference that is soft-masked.",
                weight,
                genome.name,
            )

    def along(self, interval: Interval, length: int) -> NDArray[np.float32]:
        """(length,) in reading direction of the interval's strand; 1 beyond it."""
        weights = np.ones(length, np.float32)
        bases = weights[: len(interval)]
        if interval.strand == "-":
            bases = bases[::-1]
        for start, end in overlapping(self.genome.soft_mask(interval.contig), interval.start, interval.end).tolist():
            bases[start:end] = self.weight
        return weights

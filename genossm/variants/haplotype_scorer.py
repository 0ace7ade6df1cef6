"""Scores of alleles on the haplotypes of a sample that carry them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Placement, Variant
from genossm.variants.extras import Extras
from genossm.variants.locate import Allele, Locator
from genossm.variants.options import ScoringOptions
from genossm.variants.personal import Personal, read_personal
from genossm.variants.reference import Letters
from genossm.variants.scorer import Scorer
from genossm.variants.stretches import CarriedPlacement, HaplotypeWindows


class HaplotypeScorer(Scorer):
    """A scorer of the alleles that `Personal.of_record` gives: each on the haplotypes that carry it, the mean if on
    several. With the same window, letters and horizon as any scorer; without other alleles in it, the same score.

    A head sees what it sees of any allele, with the haplotype in place of the reference.
    """

    def __init__(
        self,
        model: SequenceModel,
        genome: Genome,
        options: ScoringOptions,
        personal: Personal,
        *,
        batch_size: int | None = None,
        extras: Extras | None = None,
    ) -> None:
        self._haplotypes = personal.haplotypes
        super().__init__(model, genome, options, batch_size=batch_size, extras=extras)

    def _letters(self) -> Letters:
        self._windows = HaplotypeWindows(self._locator.letters, self._haplotypes, self.options.context)
        return self._windows.letters

    def _run(
        self,
        variants: Sequence[Variant | Allele],
        placements: Sequence[Placement],
        progress: Callable[[int], None] | None,
        *,
        exchanged: bool = True,
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        """The means over the haplotypes that carry each."""
        asked = [self._windows.placements(cast(CarriedPlacement, one)) for one in placements]
        counts = [len(several) for several in asked]
        each = [one for one, count in zip(variants, counts) for _ in range(count)]
        found, heads = super()._run(each, list(chain.from_iterable(asked)), progress, exchanged=exchanged)
        self._windows.forget()
        return {name: _means(values, counts) for name, values in found.items()}, _means(heads, counts)


def _means(values: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    """Of so many rows each; not of none."""
    parts = np.split(values, np.cumsum(counts)[:-1]) if counts else []
    return np.array([part.mean(axis=0) for part in parts]).reshape(len(counts), *values.shape[1:])


def open_scorer(
    model: SequenceModel,
    genome: Genome,
    options: ScoringOptions,
    source: str | Path,
    sample: str | None,
    *,
    batch_size: int | None = None,
    extras: Extras | None = None,
) -> tuple[Scorer, Personal | None]:
    """A scorer of a file's alleles, on the haplotypes of a sample if one is named.

    Raises: as `Scorer`, `HaplotypeScorer` and `read_personal`.
    """
    if sample is None:
        return Scorer(model, genome, options, batch_size=batch_size, extras=extras), None
    personal = read_personal(source, sample, Locator(genome, options))
    return HaplotypeScorer(model, genome, options, personal, batch_size=batch_size, extras=extras), personal

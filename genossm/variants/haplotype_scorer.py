"""Scores of alleles on the haplotypes of a sample that carry them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.extras import Extras
from genossm.variants.locate import Locator
from genossm.variants.methods import EMBEDDING, LLR, MLM
from genossm.variants.options import ScoringOptions
from genossm.variants.personal import Personal, read_personal
from genossm.variants.scorer import Passes, Scorer
from genossm.variants.stretches import CarriedPlacement, HaplotypeWindows

# What exchanging REF and ALT does to a method's numbers: ratios change their sign, distances do not.
_SIGNS = {LLR.name: -1.0, MLM.name: -1.0, EMBEDDING.name: 1.0}


class HaplotypeScorer(Scorer):
    """A scorer of the alleles that `Personal.of_record` gives: each on the haplotypes that carry it, the mean if on
    several. With the same window, letters and horizon as any scorer; without other alleles in it, the same score.

    Raises: UsageError for heads, which are trained on the reference.
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
        super().__init__(model, genome, options, batch_size=batch_size, extras=extras)
        heads = [method.name for method in self.methods if method.name not in _SIGNS]
        if heads:
            raise UsageError(
                f"--haplotypes goes with {', '.join(_SIGNS)}; the head {heads[0]} was trained on the reference. Leave "
                "one of the two out."
            )
        windows = HaplotypeWindows(self._locator.letters, personal.haplotypes, self.options.context)
        run = replace(self.options, both_strands=False) if model.config.equivariant else self.options
        self._passes = {
            name: _OnHaplotypes(
                cast(Any, type(passes))(model, windows.letters, run, batch_size=batch_size), windows, _SIGNS[name]
            )
            for name, passes in self._passes.items()
        }


class _OnHaplotypes:
    """Passes over stretches of haplotypes."""

    def __init__(self, passes: Passes, windows: HaplotypeWindows, sign: float) -> None:
        self._passes, self._windows, self._sign = passes, windows, sign

    @property
    def measured(self) -> Any:
        return getattr(self._passes, "measured", None)

    def values(
        self, placements: Sequence[Placement], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """(placements, strands, numbers of the method), the mean over the haplotypes that carry each."""
        asked = [self._windows.placements(cast(CarriedPlacement, one)) for one in placements]
        found = self._passes.values([one for several in asked for one in several], progress)
        self._windows.forget()
        ends = np.cumsum([len(several) for several in asked])
        means = [self._sign * part.mean(axis=0) for part in np.split(found, ends[:-1])] if asked else []
        return np.array(means).reshape(len(asked), *found.shape[1:])


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

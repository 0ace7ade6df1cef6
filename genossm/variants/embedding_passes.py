"""Embedding distances: mean hidden states around the allele and over its window, ALT against REF.

Where windows are long, haplotypes are read in neighbourhoods of what they change; how far that is from whole windows is
measured on some alleles of each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.haplotypes import allele_window
from genossm.variants.hidden_means import Asked, HiddenMeans
from genossm.variants.measured import MeasuredError
from genossm.variants.methods import EMBEDDING, EMBEDDING_FLANK
from genossm.variants.options import ScoringOptions
from genossm.variants.probes import Pair, haplotype_pair
from genossm.variants.reference import Letters
from genossm.variants.window_batches import groups

Progress = Callable[[int], None] | None


class EmbeddingPasses:
    """Runs placements through any model.

    batch_size: windows, or neighbourhoods, in one pass; None chooses by their length.
    measured: the error of neighbourhoods so far; None where all windows are run whole.
    """

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        self._source, self._options = source, options
        self._means = HiddenMeans(model, source, options, EMBEDDING_FLANK, batch_size=batch_size)
        self.measured: MeasuredError | None = None
        if options.neighbours(EMBEDDING):
            width = max(options.neighbourhood, EMBEDDING_FLANK)
            fields = tuple(tag.name for tag in EMBEDDING.tags)
            self.measured = MeasuredError({"neighbourhood": width, "against": "whole windows"}, fields)

    def values(self, placements: Sequence[Placement], progress: Progress = None) -> NDArray[np.float64]:
        """(placements, strands, 4) in the order of `EmbeddingDistances`, the same whatever else is asked.

        progress: called with the number of windows, or neighbourhoods, just run.
        """
        found = np.zeros((len(placements), len(self._options.strands), 4))
        before = self._means.tokens
        for chosen in groups(placements, self._options, self._source, EMBEDDING_FLANK):
            found[chosen] = self._distances([placements[number] for number in chosen], progress)
        self._measure(placements, found, self._means.tokens - before)
        return found

    def _distances(
        self, placements: Sequence[Placement], progress: Progress, *, whole: bool = False
    ) -> NDArray[np.float64]:
        pairs = [haplotype_pair(one, self._options.context, self._source) for one in placements]
        asked = [_asked(pair) for pair in pairs]
        found = np.zeros((len(pairs), len(self._options.strands), 4))
        for column, strand in enumerate(self._options.strands):
            for number, (ref, alt) in enumerate(self._means.means(pairs, asked, strand, progress, whole=whole)):
                found[number, column] = [value for a, b in zip(alt, ref) for value in _distance(a, b)]
        return found

    def _measure(self, placements: Sequence[Placement], found: NDArray[np.float64], spent: int) -> None:
        """Run some alleles whole.   spent: tokens."""
        if self.measured is None:
            return
        windows = [allele_window(one, self._options.context, "+", self._source) for one in placements]
        lengths = [window.end - window.start for window in windows]
        near = [number for number, length in enumerate(lengths) if self._options.splits(length, EMBEDDING_FLANK)]
        passes = 2 * len(self._options.strands)
        for number in self.measured.draw(placements, near, lambda number: passes * lengths[number], spent):
            full = self._distances([placements[number]], None, whole=True)
            self.measured.add(placements[number], found[number].mean(axis=0) - full[0].mean(axis=0))


def _asked(pair: Pair) -> Asked:
    """Of either haplotype its span around the allele and all of it."""
    first = max(0, pair.start - EMBEDDING_FLANK)
    ref, alt = len(pair.reference), len(pair.alternative)
    ref_span = first, min(pair.ref_end + EMBEDDING_FLANK, ref)
    alt_span = first, min(pair.alt_end + EMBEDDING_FLANK, alt)
    return (ref_span, (0, ref)), (alt_span, (0, alt))


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Euclidean, and 1 − cosine: the latter from the difference of unit vectors, since 1 − x loses what is small."""
    apart = a / np.linalg.norm(a) - b / np.linalg.norm(b)
    return float(np.linalg.norm(a - b)), float(apart @ apart) / 2

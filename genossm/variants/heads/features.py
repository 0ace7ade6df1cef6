"""What a head sees of an allele: the model's ratio, and mean hidden states with REF and with ALT around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import UsageError
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.haplotypes import allele_window
from genossm.variants.hidden_means import Asked, HiddenMeans
from genossm.variants.options import ScoringOptions
from genossm.variants.probes import Pair, haplotype_pair
from genossm.variants.reference import Letters
from genossm.variants.window_batches import groups

PARTS = ("llr", "distances", "difference", "reference")
"""The ratio and its size; Euclidean distance and 1 − cosine of ALT's mean from REF's; their difference; REF's mean."""
DEFAULT_FLANK = 64


@dataclass(frozen=True)
class FeatureSpec:
    """parts: of `PARTS`.   flank: bases on either side of an allele whose hidden states are averaged with its own.

    Raises: UsageError for a part that there is not, none, or a flank below 0.
    """

    parts: tuple[str, ...] = PARTS
    flank: int = DEFAULT_FLANK

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise UsageError(
                f"Features {', '.join(self.parts) or 'none'} are not possible; wanted of {', '.join(PARTS)}."
            )
        if self.flank < 0:
            raise UsageError(f"A flank of {self.flank} bases is not possible; wanted 0 or more.")

    def matrix(
        self, ratios: NDArray[np.float64], reference: NDArray[np.float64], alternative: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(alleles, features).   ratios: (alleles,).   reference, alternative: means, (alleles, d_model)."""
        difference = alternative - reference
        norms = np.linalg.norm(reference, axis=1, keepdims=True), np.linalg.norm(alternative, axis=1, keepdims=True)
        # From the difference of unit vectors, since 1 − x loses what is small.
        apart = ((alternative / norms[1] - reference / norms[0]) ** 2).sum(axis=1) / 2
        columns = {
            "llr": np.stack([ratios, np.abs(ratios)], axis=1),
            "distances": np.stack([np.linalg.norm(difference, axis=1), apart], axis=1),
            "difference": difference,
            "reference": reference,
        }
        return np.concatenate([columns[part] for part in PARTS if part in self.parts], axis=1)


class PairMeans:
    """Mean hidden states around alleles, with REF and with ALT, by any model: in windows that are much longer than a
    neighbourhood from the reference's states around it.
    """

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._by_flank: dict[int, HiddenMeans] = {}

    @property
    def tokens(self) -> int:
        """Read so far."""
        return sum(one.tokens for one in self._by_flank.values())

    def near(self, placement: Placement, flank: int) -> int | None:
        """Bases of an allele's window, if it is read as a reference and neighbourhoods."""
        window = allele_window(placement, self._options.context, "+", self._source)
        length = window.end - window.start
        return length if self._options.splits(length, flank) else None

    def values(
        self,
        placements: Sequence[Placement],
        flank: int,
        progress: Callable[[int], None] | None = None,
        *,
        whole: bool = False,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(alleles, d_model) of REF and of ALT, the mean over the options' strands.

        whole: read all of every window anew.   progress: called with the number of rows just run.
        """
        if flank not in self._by_flank:
            means = HiddenMeans(self._model, self._source, self._options, flank, batch_size=self._batch_size)
            self._by_flank[flank] = means
        found = np.zeros((2, len(placements), self._model.config.d_model))
        strands = self._options.strands
        for chosen in groups(placements, self._options, self._source, flank):
            pairs = [haplotype_pair(placements[i], self._options.context, self._source) for i in chosen]
            asked = [_asked(pair, flank) for pair in pairs]
            for strand in strands:
                means = self._by_flank[flank].means(pairs, asked, strand, progress, whole=whole)
                for number, sides in zip(chosen, means):
                    found[:, number] += np.stack(sides)[:, 0] / len(strands)
        return found[0], found[1]


def _asked(pair: Pair, flank: int) -> Asked:
    """Of either haplotype its span around the allele on the plus strand, of one base at least."""
    return (
        (_span(pair.start, pair.ref_end, flank, len(pair.reference)),),
        (_span(pair.start, pair.alt_end, flank, len(pair.alternative)),),
    )


def _span(start: int, end: int, flank: int, length: int) -> tuple[int, int]:
    first = min(max(0, start - flank), length - 1)
    return first, max(first + 1, min(end + flank, length))

"""What a head sees of an allele: the model's ratio, and mean hidden states with REF and with ALT around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.core.errors import UsageError
from genossm.inference import mean_hidden_states
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.options import ScoringOptions, Strand
from genossm.variants.probes import Haplotype, Pair, haplotype_pair
from genossm.variants.reference import Letters
from genossm.variants.window_batches import Rows, equal_lengths, neighbours

PARTS = ("llr", "distances", "difference", "reference")
"""The ratio and its size; Euclidean distance and 1 − cosine of ALT's mean from REF's; their difference; REF's mean."""
DEFAULT_FLANK = 64

_Span = tuple[int, int]


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
    """Mean hidden states around alleles, with REF and with ALT, by any model."""

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._rows = Rows(source, model.tokenizer)

    def values(
        self, placements: Sequence[Placement], flank: int, progress: Callable[[int], None] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(alleles, d_model) of REF and of ALT, the mean over the options' strands.

        progress: called with the number of windows just run.
        """
        width = self._model.config.d_model
        found = np.zeros((2, len(placements), width))
        strands = self._options.strands
        for chosen in neighbours(placements):
            pairs = [haplotype_pair(placements[i], self._options.context, self._source) for i in chosen]
            for strand in strands:
                means = self._means(pairs, flank, strand, progress)
                for number, pair in zip(chosen, pairs):
                    for side, (haplotype, span) in enumerate(_asked(pair, flank)):
                        found[side, number] += means[haplotype, span] / len(strands)
        return found[0], found[1]

    def _means(
        self, pairs: Sequence[Pair], flank: int, strand: Strand, progress: Callable[[int], None] | None
    ) -> dict[tuple[Haplotype, _Span], NDArray[np.float64]]:
        asked: dict[Haplotype, dict[_Span, None]] = defaultdict(dict)
        for pair in pairs:
            for haplotype, span in _asked(pair, flank):
                asked[haplotype].setdefault(span)
        means: dict[tuple[Haplotype, _Span], NDArray[np.float64]] = {}
        device = self._model.device.type
        for batch in equal_lengths(asked, len, batch_size=self._batch_size, device=device):
            ids = torch.from_numpy(np.stack([self._rows.ids(haplotype, strand) for haplotype in batch]))
            along = [[_along(span, len(haplotype), strand) for span in asked[haplotype]] for haplotype in batch]
            for haplotype, values in zip(batch, mean_hidden_states(self._model, ids, along)):
                means.update(((haplotype, span), value.numpy()) for span, value in zip(asked[haplotype], values))
            if progress:
                progress(len(batch))
        return means


def _asked(pair: Pair, flank: int) -> tuple[tuple[Haplotype, _Span], tuple[Haplotype, _Span]]:
    """Both haplotypes, REF first, each with its span around the allele on the plus strand, of one base at least."""
    return (
        (pair.reference, _span(pair.start, pair.ref_end, flank, len(pair.reference))),
        (pair.alternative, _span(pair.start, pair.alt_end, flank, len(pair.alternative))),
    )


def _span(start: int, end: int, flank: int, length: int) -> _Span:
    first = min(max(0, start - flank), length - 1)
    return first, max(first + 1, min(end + flank, length))


def _along(span: _Span, length: int, strand: Strand) -> _Span:
    return span if strand == "+" else (length - span[1], length - span[0])

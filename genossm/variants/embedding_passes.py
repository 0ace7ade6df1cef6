"""Embedding distances: mean hidden states around the allele and over its window, ALT against REF."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.inference import mean_hidden_states
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.methods import EMBEDDING_FLANK
from genossm.variants.options import ScoringOptions, Strand
from genossm.variants.probes import Haplotype, Pair, haplotype_pair
from genossm.variants.reference import Letters
from genossm.variants.window_batches import Rows, equal_lengths, neighbours

Span = tuple[int, int]
Means = dict[tuple[Haplotype, Span], NDArray[np.float64]]


class EmbeddingPasses:
    """Runs placements through any model.   batch_size: windows in one pass; None chooses by their length."""

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._rows = Rows(source, model.tokenizer)

    def values(
        self, placements: Sequence[Placement], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """(placements, strands, 4) in the order of `EmbeddingDistances`, the same whatever else is asked.

        progress: called with the number of windows just run.
        """
        found = np.zeros((len(placements), len(self._options.strands), 4))
        for chosen in neighbours(placements):
            pairs = [haplotype_pair(placements[i], self._options.context, self._source) for i in chosen]
            for column, strand in enumerate(self._options.strands):
                means = self._means(pairs, strand, progress)
                for number, pair in zip(chosen, pairs):
                    found[number, column] = _distances(pair, means)
        return found

    def _means(self, pairs: Sequence[Pair], strand: Strand, progress: Callable[[int], None] | None) -> Means:
        """Mean hidden states of every span of every haplotype, each haplotype run once."""
        asked: dict[Haplotype, dict[Span, None]] = defaultdict(dict)
        for pair in pairs:
            for haplotype, spans in _asked(pair):
                asked[haplotype].update(dict.fromkeys(spans))
        means: Means = {}
        device = self._model.device.type
        for batch in equal_lengths(asked, len, batch_size=self._batch_size, device=device):
            ids = np.stack([self._rows.ids(haplotype, strand) for haplotype in batch])
            along = [[_along(span, len(haplotype), strand) for span in asked[haplotype]] for haplotype in batch]
            for haplotype, values in zip(batch, mean_hidden_states(self._model, torch.from_numpy(ids), along)):
                means.update(((haplotype, span), value.numpy()) for span, value in zip(asked[haplotype], values))
            if progress:
                progress(len(batch))
        return means


def _asked(pair: Pair) -> tuple[tuple[Haplotype, tuple[Span, Span]], tuple[Haplotype, tuple[Span, Span]]]:
    """Both haplotypes, REF first, each with its span around the allele and all of it, on the plus strand."""
    first = max(0, pair.start - EMBEDDING_FLANK)
    ref, alt = pair.reference, pair.alternative
    ref_span = first, min(pair.ref_end + EMBEDDING_FLANK, len(ref))
    alt_span = first, min(pair.alt_end + EMBEDDING_FLANK, len(alt))
    return (ref, (ref_span, (0, len(ref)))), (alt, (alt_span, (0, len(alt))))


def _along(span: Span, length: int, strand: Strand) -> Span:
    return span if strand == "+" else (length - span[1], length - span[0])


def _distances(pair: Pair, means: Means) -> tuple[float, float, float, float]:
    (ref, ref_spans), (alt, alt_spans) = _asked(pair)
    around, window = (_distance(means[alt, of_alt], means[ref, of_ref]) for of_ref, of_alt in zip(ref_spans, alt_spans))
    return *around, *window


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Euclidean, and 1 − cosine: the latter from the difference of unit vectors, since 1 − x loses what is small."""
    apart = a / np.linalg.norm(a) - b / np.linalg.norm(b)
    return float(np.linalg.norm(a - b)), float(apart @ apart) / 2

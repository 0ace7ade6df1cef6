"""Mean hidden states of what an allele changes, and around it, by any model.

A window that is much longer than a neighbourhood is read once, as the reference has it; of every haplotype its
neighbourhood alone is run, from the states that the reference has there. What a haplotype's hidden states are outside
of it is taken to be what the reference's are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.inference import ReadReference, hidden_sums, mean_hidden_states, read_reference
from genossm.models import SequenceModel
from genossm.variants.neighbourhood import affordable, along_strand, strand_ids
from genossm.variants.options import NEIGHBOURHOOD_GRID, ScoringOptions, Strand
from genossm.variants.probes import Haplotype, Pair
from genossm.variants.reference import Letters
from genossm.variants.window_batches import Rows, equal_lengths

Span = tuple[int, int]
Asked = tuple[tuple[Span, ...], tuple[Span, ...]]
"""Spans of REF's haplotype and of ALT's, in letters of the plus strand from the window's start."""
Means = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(spans, d_model) of REF and of ALT."""
Progress = Callable[[int], None] | None


@dataclass(frozen=True, slots=True)
class _Row:
    """A haplotype's letters in place of its window's `first` to `last`."""

    haplotype: Haplotype
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + len(self.haplotype) - self._window

    @property
    def _window(self) -> int:
        return self.haplotype.end - self.haplotype.start

    @property
    def is_whole(self) -> bool:
        return (self.first, self.last) == (0, self._window)

    @property
    def all_of_it(self) -> Span:
        """Where it stands in the haplotype."""
        return self.first, self.first + len(self)

    @property
    def plain(self) -> _Row:
        """The same place as the reference has it."""
        one = self.haplotype
        return _Row(Haplotype(one.contig, one.start, one.end), self.first, self.last)

    def holds(self, span: Span) -> bool:
        return self.first <= span[0] and span[1] <= self.all_of_it[1]


class HiddenMeans:
    """width: bases on either side of what changes that are read anew, at least.   tokens: read so far."""

    def __init__(
        self,
        model: SequenceModel,
        source: Letters,
        options: ScoringOptions,
        width: int,
        *,
        batch_size: int | None = None,
    ) -> None:
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._least = width
        self._rows = Rows(source, model.tokenizer)
        self.tokens = 0

    def means(
        self,
        pairs: Sequence[Pair],
        asked: Sequence[Asked],
        strand: Strand,
        progress: Progress = None,
        *,
        whole: bool = False,
    ) -> list[Means]:
        """One a pair.   asked: spans that lie around the allele, no wider than `width`, or are the whole haplotype.

        whole: read all of every window anew.   progress: called with the number of rows just run.
        """
        rows = [self._of_pair(pair, whole=whole) for pair in pairs]
        wanted: dict[_Row, dict[Span, None]] = defaultdict(dict)
        for of_pair, spans_of_pair in zip(rows, asked, strict=True):
            for row, spans in zip(of_pair, spans_of_pair):
                for span in spans:
                    if row.holds(span):
                        wanted[row].setdefault(span)
                    else:
                        wanted[row].setdefault(row.all_of_it)
                        wanted[row.plain].setdefault(row.plain.all_of_it)
        total = any(not row.holds(span) for a, b in zip(rows, asked) for row, spans in zip(a, b) for span in spans)
        sums, totals = self._run(wanted, strand, progress, total=total)

        def mean(row: _Row, span: Span) -> NDArray[np.float64]:
            if row.holds(span):
                return sums[row, span] / (span[1] - span[0])
            inside, before = sums[row, row.all_of_it], sums[row.plain, row.plain.all_of_it]
            # The total comes last: what both haplotypes share leaves no rounding in their difference.
            return ((inside - before) + totals[row.plain.haplotype]) / len(row.haplotype)

        return [
            tuple(np.stack([mean(row, span) for span in spans]) for row, spans in zip(of_pair, spans_of_pair))
            for of_pair, spans_of_pair in zip(rows, asked)
        ]  # type: ignore[return-value]

    def _of_pair(self, pair: Pair, *, whole: bool) -> tuple[_Row, _Row]:
        """What is run of either haplotype. It follows from the allele and its window alone."""
        length = pair.reference.end - pair.reference.start
        first, last = 0, length
        if not whole and self._options.splits(length, self._least):
            width, grid = max(self._options.neighbourhood, self._least), NEIGHBOURHOOD_GRID
            first = max(0, (pair.start - width) // grid * grid)
            last = min(length, -(-(pair.ref_end + width) // grid) * grid)
        return _Row(pair.reference, first, last), _Row(pair.alternative, first, last)

    def _run(
        self, wanted: Mapping[_Row, Mapping[Span, None]], strand: Strand, progress: Progress, *, total: bool
    ) -> tuple[dict[tuple[_Row, Span], NDArray[np.float64]], dict[Haplotype, NDArray[np.float64]]]:
        """Sums over spans of rows, and of all of those windows that are read as the reference has them."""
        sums: dict[tuple[_Row, Span], NDArray[np.float64]] = {}
        totals: dict[Haplotype, NDArray[np.float64]] = {}
        by_window: dict[Haplotype, list[_Row]] = defaultdict(list)
        whole = [row for row in wanted if row.is_whole]
        for row in wanted:
            if not row.is_whole:
                by_window[row.plain.haplotype].append(row)
        device = self._model.device.type
        for batch in equal_lengths(whole, len, batch_size=self._batch_size, device=device):
            self._take(sums, batch, wanted, self._whole_sums(batch, wanted, strand), progress)
        for window, rows in by_window.items():
            for reference, some in self._references(window, rows, strand, total=total):
                if reference.total is not None:
                    totals[window] = reference.total.numpy()
                for batch in equal_lengths(some, len, batch_size=self._batch_size, device=device):
                    self._take(sums, batch, wanted, self._near_sums(reference, batch, wanted, strand), progress)
        return sums, totals

    def _take(
        self,
        sums: dict[tuple[_Row, Span], NDArray[np.float64]],
        batch: Sequence[_Row],
        wanted: Mapping[_Row, Mapping[Span, None]],
        found: Sequence[NDArray[np.float64]],
        progress: Progress,
    ) -> None:
        self.tokens += sum(map(len, batch))
        for row, of_row in zip(batch, found, strict=True):
            sums.update(((row, span), value) for span, value in zip(wanted[row], of_row, strict=True))
        if progress:
            progress(len(batch))

    def _whole_sums(
        self, batch: Sequence[_Row], wanted: Mapping[_Row, Mapping[Span, None]], strand: Strand
    ) -> list[NDArray[np.float64]]:
        ids = np.stack([self._rows.ids(row.haplotype, strand) for row in batch])
        along = [[along_strand(span, len(row), strand) for span in wanted[row]] for row in batch]
        means = mean_hidden_states(self._model, torch.from_numpy(ids), along)
        lengths = [np.array([last - first for first, last in spans])[:, None] for spans in along]
        return [one.numpy() * length for one, length in zip(means, lengths)]

    def _references(
        self, window: Haplotype, rows: Sequence[_Row], strand: Strand, *, total: bool
    ) -> Iterator[tuple[ReadReference, list[_Row]]]:
        """The window, read as the reference has it, and the rows that go with what is kept of it."""
        by_stretch: dict[Span, list[_Row]] = defaultdict(list)
        for row in rows:
            by_stretch[row.first, row.last].append(row)
        ids = torch.from_numpy(strand_ids(self._model.tokenizer, window.read(self._source), strand))
        for stretches in affordable(self._model, sorted(by_stretch)):
            self.tokens += len(window)
            along = [along_strand(stretch, len(window), strand) for stretch in stretches]
            reference = read_reference(self._model, ids, along, total=total)
            yield reference, [row for one in stretches for row in by_stretch[one]]

    def _near_sums(
        self,
        reference: ReadReference,
        batch: Sequence[_Row],
        wanted: Mapping[_Row, Mapping[Span, None]],
        strand: Strand,
    ) -> list[NDArray[np.float64]]:
        ids = [
            strand_ids(self._model.tokenizer, row.haplotype.read(self._source, *row.all_of_it), strand) for row in batch
        ]
        window = batch[0].plain.haplotype
        stretches = [along_strand((row.first, row.last), len(window), strand) for row in batch]
        spans = [
            [along_strand((first - row.first, last - row.first), len(row), strand) for first, last in wanted[row]]
            for row in batch
        ]
        found = hidden_sums(self._model, reference, torch.from_numpy(np.stack(ids)), stretches, spans)
        return [one.numpy() for one in found]

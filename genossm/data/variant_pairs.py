"""Pairs of windows, one with the reference allele and one with the alternative, with labels: what heads learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genossm.core.errors import ConfigError, ContigNotFoundError, IntervalError
from genossm.data.edges import EdgePolicy
from genossm.data.variant_rows import VariantRows
from genossm.data.windows import sample_order, sample_strand
from genossm.sequence import Interval, Placement, Variant, place, place_on_circle, reverse_complement
from genossm.sequence.status import Status, reference_status, written_status

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PairItem:
    """reference, alternative: (length,) token ids without special ones, in reading direction of `interval`.

    reference_span, alternative_span: first token, and the one after the last, of all equivalent placements of the
    allele in either window; empty where nothing stands there (an insertion, in the reference).
    label, covariates: (labels,) and (covariates,), NaN where unknown.   row: of the table.   interval: of the reference
    window, cut at the contig's ends.   sample: the number that the pair was asked for by.
    """

    reference: NDArray[np.uint8]
    alternative: NDArray[np.uint8]
    reference_span: Span
    alternative_span: Span
    label: NDArray[np.float32]
    covariates: NDArray[np.float32]
    row: int
    interval: Interval
    sample: int


@dataclass(frozen=True, slots=True)
class _Site:
    """start: of the window, on the plus strand; it may lie outside of a contig, where the window is padded or wraps."""

    row: int
    start: int
    placement: Placement


class VariantPairs(Dataset[PairItem]):
    """Item n is a pair of windows around an allele, reference and alternative, both of `length` bases.

    The allele (the leftmost of equivalent placements) is in the middle of the reference window. The alternative window
    begins where the reference window does; what follows the allele fills up a deletion and is cut behind an insertion.
    edges: what happens where the bases that either window needs leave the contig; a circular contig goes around.
    n may pass `len`, which is one epoch. shuffle: a new order each epoch.   reverse_complement: each pair on a random
    strand. Both follow from `seed` and n alone.

    statuses: one a row; only rows that are OK have items.   rows: (items,) the row of each, in the table's order.
    padded, shifted: windows that hold N for want of sequence, or were moved.
    Raises: IntervalError under the edge policy, for the first window that is not possible, or if no row has a place;
    ConfigError for a length below 1 or an unknown policy.
    """

    def __init__(
        self,
        genome: Genome,
        rows: VariantRows,
        tokenizer: NucleotideTokenizer,
        length: int,
        *,
        edges: EdgePolicy = "raise",
        shuffle: bool = False,
        reverse_complement: bool = False,
        seed: int = 0,
    ) -> None:
        if length < 1 or edges not in get_args(EdgePolicy):
            raise ConfigError(
                f"Windows of {length} bases with edge policy {edges!r} are impossible; wanted at least 1 base, and one "
                f"of {', '.join(get_args(EdgePolicy))}."
            )
        self.genome, self.table, self.tokenizer, self.length = genome, rows, tokenizer, length
        self.edges: EdgePolicy = edges
        self.shuffle, self.reverse_complement, self.seed = shuffle, reverse_complement, seed
        self.padded = self.shifted = 0
        found = [self._locate(row) for row in range(len(rows))]
        self.statuses = tuple(status for status, _ in found)
        self._sites = [self._site(row, placement) for row, (_, placement) in enumerate(found) if placement is not None]
        if not self._sites:
            counted = ", ".join(f"{count} {status}" for status, count in Counter(self.statuses).most_common())
            raise IntervalError(f"None of {len(rows)} variants has a place in {genome.name}: {counted}.")
        self.rows = np.array([site.row for site in self._sites], np.int64)

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, index: int) -> PairItem:
        number = sample_order(self.seed, index, len(self)) if self.shuffle else index % len(self)
        strand = sample_strand(self.seed, index) if self.reverse_complement else "+"
        site = self._sites[number]
        texts, spans = self._windows(site)
        if strand == "-":
            texts = [reverse_complement(text) for text in texts]
            spans = [(self.length - last, self.length - first) for first, last in spans]
        return PairItem(
            reference=self.tokenizer.encode(texts[0]),
            alternative=self.tokenizer.encode(texts[1]),
            reference_span=spans[0],
            alternative_span=spans[1],
            label=self.table.labels[site.row],
            covariates=self.table.covariates[site.row],
            row=site.row,
            interval=replace(self._interval(site), strand=strand),
            sample=index,
        )

    def _locate(self, row: int) -> tuple[Status, Placement | None]:
        """What the reference says of a row, and where its allele stands if there is something to place."""
        ref, alt = self.table.refs[row], self.table.alts[row]
        status = written_status(ref, alt)
        if status is not None or alt is None:
            return status or Status.NO_ALT, None
        try:
            contig = self.genome.resolve(self.table.contigs[row])
        except ContigNotFoundError:
            return Status.CONTIG_UNKNOWN, None
        pos1, length, circular = self.table.pos1[row], self.genome.length(contig), self.genome.is_circular(contig)

        def around(start0: int, end0: int) -> bytes:
            return self._letters(contig, start0, end0) if circular else self.genome.reader(contig)(start0, end0)

        status = reference_status(pos1, ref, length, around, circular=circular)
        if status is not None:
            return status, None
        if ref.upper() == alt.upper():
            found = Placement(contig, pos1 - 1, pos1 - 1, ref.upper(), alt.upper())
        else:
            variant = Variant(contig, pos1, ref, alt)
            found = place_on_circle(variant, around, length) if circular else place(variant, around)
        if 2 * max(len(found.ref), len(found.alt)) > self.length:
            return Status.TOO_LONG, None
        return Status.OK, found

    def _site(self, row: int, placement: Placement) -> _Site:
        """The window of an allele, under the edge policy."""
        start = (2 * placement.leftmost + len(placement.ref) - self.length) // 2
        needed = self._needed(placement)
        contig, limit = placement.contig, self.genome.length(placement.contig)
        circular = self.genome.is_circular(contig)
        if (circular and needed <= limit) or (start >= 0 and start + needed <= limit):
            return _Site(row, start, placement)
        if self.edges == "pad" and not circular:
            self.padded += 1
            return _Site(row, start, placement)
        if self.edges == "shift" and needed <= limit:
            self.shifted += 1
            return _Site(row, min(max(0, start), limit - needed), placement)
        raise IntervalError(
            f"{self.table.places[row]}: windows of {self.length:,} bases around {contig}:{placement.leftmost + 1:,} "
            f"need {needed:,} bases and leave contig {contig} of {self.genome.name}, which has {limit:,}. Choose a "
            'shorter window, or an edge policy ("pad" fills with N, "shift" moves the windows inside).'
        )

    def _needed(self, placement: Placement) -> int:
        """Bases of the reference from the window's start on that the two windows are made of."""
        return self.length + max(0, len(placement.ref) - len(placement.alt))

    def _windows(self, site: _Site) -> tuple[list[bytes], list[Span]]:
        """Letters of the reference and the alternative window on the plus strand, and where the allele is in each."""
        placement, start = site.placement, site.start
        letters = self._letters(placement.contig, start, start + self._needed(placement))
        first = placement.leftmost - start
        after = letters[first + len(placement.ref) :]
        repeated = placement.rightmost - placement.leftmost
        texts: list[bytes] = []
        spans: list[Span] = []
        # Where the reference has an ambiguity code, its own window too holds the base that REF says.
        for allele in (placement.ref, placement.alt):
            texts.append((letters[:first] + allele.encode("ascii") + after)[: self.length])
            spans.append((first, min(self.length, first + repeated + len(allele))))
        return texts, spans

    def _letters(self, contig: str, start0: int, end0: int) -> bytes:
        """Letters from any coordinate to any other: around a circular contig, N outside of any other."""
        length = self.genome.length(contig)
        if self.genome.is_circular(contig):
            pieces: list[bytes] = []
            while start0 < end0:
                # The genome reads on from 0 for up to one turn.
                last = min(end0, start0 + length)
                pieces.append(self.genome.fetch(Interval(contig, start0 % length, start0 % length + last - start0)))
                start0 = last
            return b"".join(pieces)
        low, high = max(0, start0), min(end0, length)
        return b"N" * (low - start0) + self.genome.fetch(Interval(contig, low, high)) + b"N" * (end0 - high)

    def _interval(self, site: _Site) -> Interval:
        contig, start = site.placement.contig, site.start
        if self.genome.is_circular(contig):
            start %= self.genome.length(contig)
            return Interval(contig, start, start + self.length)
        return Interval(contig, max(0, start), min(start + self.length, self.genome.length(contig)))


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Items stacked; spans are (first, after the last) in tokens of the windows, special ones counted."""

    reference: UInt8[Tensor, "batch tokens"]
    alternative: UInt8[Tensor, "batch tokens"]
    reference_spans: Int64[Tensor, "batch 2"]
    alternative_spans: Int64[Tensor, "batch 2"]
    labels: Float32[Tensor, "batch labels"]
    covariates: Float32[Tensor, "batch covariates"]
    rows: Int64[Tensor, " batch"]

    def to(self, *args: Any, **kwargs: Any) -> PairBatch:
        """The batch on another device; Lightning calls this."""
        return PairBatch(*(getattr(self, field.name).to(*args, **kwargs) for field in fields(self)))

    def pin_memory(self) -> PairBatch:
        """The batch in page-locked memory; torch's loader calls this."""
        return PairBatch(*(getattr(self, field.name).pin_memory() for field in fields(self)))


class PairCollator:
    """Stacks pairs, each window with the special tokens that the tokenizer adds."""

    def __init__(self, tokenizer: NucleotideTokenizer) -> None:
        framed = tokenizer.encode(b"A", add_special_tokens=True)
        self._front = framed[: int(np.flatnonzero(framed == tokenizer.encode(b"A")[0])[0])]
        self._back = framed[len(self._front) + 1 :]

    def __call__(self, items: Sequence[PairItem]) -> PairBatch:
        return PairBatch(
            reference=self._framed([item.reference for item in items]),
            alternative=self._framed([item.alternative for item in items]),
            reference_spans=torch.tensor([item.reference_span for item in items]) + len(self._front),
            alternative_spans=torch.tensor([item.alternative_span for item in items]) + len(self._front),
            labels=torch.from_numpy(np.stack([item.label for item in items])),
            covariates=torch.from_numpy(np.stack([item.covariates for item in items])),
            rows=torch.tensor([item.row for item in items]),
        )

    def _framed(self, windows: list[NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack([np.concatenate([self._front, ids, self._back]) for ids in windows]))

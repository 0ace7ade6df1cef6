"""Letters of a genome for many small readings close to one another."""

from __future__ import annotations

from collections import OrderedDict

from genossm.genome import Genome
from genossm.sequence import Interval, scoring_window
from genossm.sequence.normalize import Fetch

_BLOCK = 1 << 16
_KEPT = 64


class Letters:
    """Upper-case letters of a genome, read in blocks of which the latest stay in memory (4 MB)."""

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._readers: dict[str, Fetch] = {}

    def reader(self, contig: str) -> Fetch:
        """`fetch(start0, end0)` of one contig by its own name, cut at its ends and empty outside."""
        if contig not in self._readers:
            length = self.genome.length(contig)
            self._readers[contig] = lambda start0, end0: self._fetch(contig, max(0, start0), min(end0, length))
        return self._readers[contig]

    def window(self, contig: str, start0: int, context: int | None) -> tuple[int, int]:
        """The window `(start, end)` of an allele whose left-aligned VCF form stands at `start0`."""
        circular = self.genome.is_circular(contig)
        return scoring_window(start0, context, self.genome.length(contig), circular=circular)

    def wrapped(self, contig: str, start0: int, end0: int) -> bytes:
        """Letters from any coordinate to any other: before 0 and past the contig's end they go around."""
        fetch, length = self.reader(contig), self.genome.length(contig)
        if start0 >= 0 and end0 <= length:
            return fetch(start0, end0)
        pieces: list[bytes] = []
        while start0 < end0:
            first = start0 % length
            last = min(length, first + end0 - start0)
            pieces.append(fetch(first, last))
            start0 += last - first
        return b"".join(pieces)

    def around(self, contig: str, start0: int, end0: int) -> bytes:
        """Letters as the contig has them: going around a circular one, cut at the ends of any other."""
        return (self.wrapped if self.genome.is_circular(contig) else self._cut)(contig, start0, end0)

    def _cut(self, contig: str, start0: int, end0: int) -> bytes:
        return self.reader(contig)(start0, end0)

    def _fetch(self, contig: str, start0: int, end0: int) -> bytes:
        if start0 >= end0:
            return b""
        first, last = start0 // _BLOCK, (end0 - 1) // _BLOCK
        if last - first > 2:
            # A long stretch is read once and would only push the neighbourhood out.
            return self.genome.fetch(Interval(contig, start0, end0))
        letters = b"".join(self._block(contig, number) for number in range(first, last + 1))
        return letters[start0 - first * _BLOCK : end0 - first * _BLOCK]

    def _block(self, contig: str, number: int) -> bytes:
        key = (contig, number)
        if key not in self._blocks:
            end = min((number + 1) * _BLOCK, self.genome.length(contig))
            self._blocks[key] = self.genome.fetch(Interval(contig, number * _BLOCK, end))
            while len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

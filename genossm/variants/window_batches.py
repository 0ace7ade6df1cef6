"""Neighbouring alleles in groups, their haplotypes in batches of equal length: for models that read whole windows.

Nothing is padded: a model that reads backwards would read the padding first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from genossm.sequence import NucleotideTokenizer, Placement
from genossm.variants.haplotypes import Window, allele_window
from genossm.variants.options import ScoringOptions, Strand
from genossm.variants.probes import Haplotype
from genossm.variants.reference import Letters

# On a CPU more rows gain nothing once a pass is this long; a GPU wants more work at a time.
_PASS_TOKENS = {"cpu": 1 << 13}
_PASS_TOKENS_ELSEWHERE = 1 << 17

# Alleles whose answers are held at once.
_GROUP = 512

T = TypeVar("T")


def neighbours(placements: Sequence[Placement]) -> Iterator[list[int]]:
    """Numbers of the placements in groups along the contigs, so that those of a group share windows and sites."""
    order = sorted(range(len(placements)), key=lambda i: (placements[i].contig, placements[i].leftmost))
    for start in range(0, len(order), _GROUP):
        yield order[start : start + _GROUP]


def groups(
    placements: Sequence[Placement], options: ScoringOptions, source: Letters, flank: int = 0
) -> list[list[int]]:
    """Numbers of placements whose answers are held at once; those of a window read as neighbourhoods together."""
    if not options.splits(options.usual_window, flank):
        return list(neighbours(placements))
    by_window: dict[Window, list[int]] = defaultdict(list)
    for group in neighbours(placements):
        for number in group:
            by_window[allele_window(placements[number], options.context, "+", source)].append(number)
    return list(by_window.values())


def equal_lengths(
    items: Iterable[T], length_of: Callable[[T], int], *, batch_size: int | None, device: str
) -> Iterator[list[T]]:
    """Batches of items that are equally long, in the order in which they came otherwise.

    batch_size: rows of a batch; None chooses by their length and the device's kind.
    """
    groups: dict[int, list[T]] = defaultdict(list)
    for item in items:
        groups[length_of(item)].append(item)
    tokens = _PASS_TOKENS.get(device, _PASS_TOKENS_ELSEWHERE)
    for length, group in groups.items():
        size = batch_size or max(1, tokens // length)
        for start in range(0, len(group), size):
            yield group[start : start + size]


class Rows:
    """Token ids of haplotypes along a strand. Neighbours in a batch are often the same haplotype: it is read once."""

    def __init__(self, source: Letters, tokenizer: NucleotideTokenizer) -> None:
        self._source, self._tokenizer = source, tokenizer
        self._latest: tuple[Haplotype, Strand, npt.NDArray[np.uint8]] | None = None

    def ids(self, haplotype: Haplotype, strand: Strand) -> npt.NDArray[np.uint8]:
        """(length,) of the whole haplotype, with nothing around it."""
        if self._latest is None or self._latest[:2] != (haplotype, strand):
            ids = self._tokenizer.encode(haplotype.read(self._source))
            ids = ids if strand == "+" else self._tokenizer.reverse_complement(ids)
            self._latest = haplotype, strand, ids
        return self._latest[2]

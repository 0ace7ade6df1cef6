"""How far scores that leave something out are from those that do not: measured on some of the alleles themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from genossm.sequence import Placement

SAMPLE = 16
"""Alleles of a block that are measured at most."""


@dataclass
class MeasuredError:
    """Differences to the full computation, in nats.

    about: what they are the error of, and how it was set, for a summary.   count: alleles measured.
    """

    about: Mapping[str, int | str]
    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)

    def add(self, placement: Placement, difference: float) -> None:
        """One allele's score less its full one."""
        size = abs(difference)
        self.count, self.total, self.largest = self.count + 1, self.total + size, max(self.largest, size)
        kind = "substitutions" if len(placement.ref) == len(placement.alt) else "length_changes"
        self.seen[kind] = self.seen.get(kind, 0) + 1

    def as_dict(self) -> dict[str, int | float | str]:
        """For JSON; nothing of the errors where nothing was measured."""
        if not self.count:
            return {**self.about, "alleles": 0}
        mean = self.total / self.count
        return {**self.about, "alleles": self.count, **self.seen, "max_abs": self.largest, "mean_abs": mean}


def drawn(placements: Sequence[Placement], numbers: Sequence[int]) -> list[int]:
    """`numbers` of placements in an order that is random, and the same for the same alleles in any order."""
    return sorted(numbers, key=lambda number: _draw(placements[number]))


def affordable(ranked: Sequence[int], cost: Callable[[int], int], budget: int, *, most: int = SAMPLE) -> Iterator[int]:
    """Those of `ranked` whose costs together stay within `budget`, in that order; at least the cheapest one."""
    chosen = 0
    for number in ranked:
        price = cost(number)
        if chosen < most and price <= budget:
            chosen, budget = chosen + 1, budget - price
            yield number
    if not chosen and ranked:
        yield min(ranked, key=cost)


def _draw(placement: Placement) -> tuple[bytes, str, int]:
    text = f"{placement.contig}:{placement.leftmost}:{placement.ref}>{placement.alt}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest(), placement.contig, placement.leftmost

"""How far scores that leave something out are from those that do not: measured on some of the alleles themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genossm.sequence import Placement

_SHARE = 8
_MOST = 4


@dataclass
class MeasuredError:
    """Differences to the full computation, in nats.

    about: what they are the error of, and how it was set, for a summary.   count: alleles measured.
    An eighth of what scoring costs is spent on it, and in any case one allele.
    """

    about: Mapping[str, int | str]
    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    budget: float = 0.0

    def draw(
        self,
        placements: Sequence[Placement],
        numbers: Sequence[int],
        cost: Callable[[int], int],
        spent: int,
        *,
        alone: bool = False,
    ) -> list[int]:
        """Which of the alleles `numbers` to measure: drawn at random, but the same ones whatever their order.

        cost: of measuring one.   spent: on scoring all of `placements`, in the same unit. What is not used is kept.
        alone: the draw looks at nothing but `placements`: for a sample that shares batches with what is scored, so that
        pieces of a file, and runs that are resumed, have their scores in the company of the whole file.
        """
        self.budget = spent / _SHARE + (0 if alone else self.budget)
        chosen: list[int] = []
        for number in sorted(numbers, key=lambda number: _draw(placements[number])):
            price = cost(number)
            if len(chosen) < _MOST and price <= self.budget:
                self.budget -= price
                chosen.append(number)
        if not chosen and (alone or not self.count) and numbers:
            chosen = [min(numbers, key=lambda number: (cost(number), _draw(placements[number])))]
        return chosen

    def add(self, placement: Placement, difference: float) -> None:
        """One allele's score less its full one."""
        size = abs(difference)
        self.count, self.total, self.largest = self.count + 1, self.total + size, max(self.largest, size)
        kind = "substitutions" if len(placement.ref) == len(placement.alt) else "length_changes"
        self.seen[kind] = self.seen.get(kind, 0) + 1

    def state(self) -> list[Any]:
        """What has been measured so far, for JSON; `restore` takes it."""
        return [self.count, self.total, self.largest, self.seen, self.budget]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what an earlier run had measured."""
        self.count, self.total, self.largest, seen, self.budget = state
        self.seen = dict(seen)

    def as_dict(self) -> dict[str, int | float | str]:
        """For JSON; nothing of the errors where nothing was measured."""
        if not self.count:
            return {**self.about, "alleles": 0}
        mean = self.total / self.count
        return {**self.about, "alleles": self.count, **self.seen, "max_abs": self.largest, "mean_abs": mean}


def _draw(placement: Placement) -> tuple[bytes, str, int]:
    text = f"{placement.contig}:{placement.leftmost}:{placement.ref}>{placement.alt}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest(), placement.contig, placement.leftmost

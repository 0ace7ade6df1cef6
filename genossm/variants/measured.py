"""How far scores that leave something out are from those that do not: measured on some of the alleles themselves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from genossm.sequence import Placement

FEW, FEW_SHARE = 4, 1 / 8
"""Alleles of a call, and what of its cost may be spent on them."""
MANY, MANY_SHARE = 64, 1 / 50
"""So many, as long as they cost no more than that."""
QUANTILE = 0.95
"""Given from `MANY` alleles on. The largest of 64 is above this quantile of all alleles with a probability of 96 %."""


@dataclass
class MeasuredError:
    """Differences to the full computation, in the unit of the numbers.

    about: what they are the error of, and how it was set, for a summary.   fields: of the numbers, where there are
    several.   found: of each allele, its kind and its differences, without sign.
    budget: what may yet be spent.   told: alleles that `state` has told.
    """

    about: Mapping[str, int | str]
    fields: tuple[str, ...] = ()
    found: list[tuple[str, list[float]]] = field(default_factory=list)
    budget: float = 0.0
    told: int = 0

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

        Up to `FEW` that cost an eighth, one in any case, and up to `MANY` as long as they cost a fiftieth.
        cost: of measuring one.   spent: on scoring all of `placements`, in the same unit. What is not used is kept.
        alone: the draw looks at nothing but `placements`: for a sample that shares batches with what is scored, so that
        pieces of a file, and runs that are resumed, have their scores in the company of the whole file.
        """
        self.budget = spent * FEW_SHARE + (0 if alone else self.budget)
        chosen: list[int] = []
        paid = 0
        for number in sorted(numbers, key=lambda number: _draw(placements[number])):
            price = cost(number)
            limit = self.budget if len(chosen) < FEW else spent * MANY_SHARE
            if len(chosen) < MANY and paid + price <= limit:
                paid += price
                chosen.append(number)
        self.budget -= paid
        if not chosen and (alone or not self.found) and numbers:
            chosen = [min(numbers, key=lambda number: (cost(number), _draw(placements[number])))]
        return chosen

    def add(self, placement: Placement, difference: ArrayLike) -> None:
        """One allele's number, or numbers, less what the full computation gives."""
        kind = "substitutions" if len(placement.ref) == len(placement.alt) else "length_changes"
        self.found.append((kind, np.abs(np.ravel(difference)).tolist()))

    def state(self) -> dict[str, Any]:
        """What has been measured since this was last asked, for JSON; `restore` takes it."""
        new, self.told = self.found[self.told :], len(self.found)
        return {"budget": self.budget, "found": new}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add what an earlier run had measured."""
        self.budget = state["budget"]
        self.found += [(kind, differences) for kind, differences in state["found"]]
        self.told = len(self.found)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; nothing of the errors where nothing was measured."""
        about = {**self.about, "alleles": len(self.found)}
        if not self.found:
            return about
        kinds = Counter(kind for kind, _ in self.found)
        columns = [_errors(column) for column in np.array([differences for _, differences in self.found]).T]
        return {**about, **kinds, **(dict(zip(self.fields, columns, strict=True)) if self.fields else columns[0])}


def _errors(differences: np.ndarray) -> dict[str, float]:
    found = {"max_abs": float(differences.max()), "mean_abs": float(differences.mean())}
    if len(differences) >= MANY:
        found[f"q{QUANTILE * 100:.0f}_abs"] = float(np.quantile(differences, QUANTILE, method="higher"))
    return found


def _draw(placement: Placement) -> tuple[bytes, str, int]:
    text = f"{placement.contig}:{placement.leftmost}:{placement.ref}>{placement.alt}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest(), placement.contig, placement.leftmost

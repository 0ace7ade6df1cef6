"""What is usual of a number that a run gives again and again, and when it is usual no longer."""

from __future__ import annotations

import math
from typing import Any


class Usual:
    """Running mean and spread of a number; values far above them move them no more than values just too high do.

    margin: what a value may be above the mean in any case.   deviations: how many standard deviations besides.
    memory: values that the mean is over, about.   patience: values before anything can be unusual.
    """

    def __init__(self, margin: float, *, deviations: float = 6.0, memory: int = 100, patience: int = 20) -> None:
        self.margin, self.deviations, self.memory, self.patience = margin, deviations, memory, patience
        self.count, self.mean, self.variance = 0, 0.0, 0.0

    @property
    def limit(self) -> float:
        """Above it a value is unusual; infinite while there are too few."""
        if self.count < self.patience:
            return math.inf
        return self.mean + max(self.margin, self.deviations * math.sqrt(self.variance))

    def add(self, value: float) -> bool:
        """Whether `value` is unusually high, judged by those before it. Infinity always is; NaN is passed over."""
        if not math.isfinite(value):
            return value == math.inf
        limit = self.limit
        difference = min(value, limit) - self.mean
        # A slow climb must not widen what is allowed as fast as it climbs.
        known = self.count >= self.patience
        square = min(difference**2, 9.0 * self.variance + (0.1 * self.margin) ** 2) if known else difference**2
        self.count += 1
        weight = max(1.0 / self.count, 1.0 / self.memory)
        self.mean += weight * difference
        self.variance = (1.0 - weight) * (self.variance + weight * square)
        return value > limit

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.variance = state["count"], state["mean"], state["variance"]


class Episode:
    """Says once that something is wrong, and not again before it has been right for `calm` looks in a row."""

    def __init__(self, calm: int) -> None:
        self.calm = calm
        self._left = 0

    def begins(self, wrong: bool) -> bool:
        """Whether this look is the first of an episode."""
        first = wrong and not self._left
        self._left = self.calm if wrong else max(0, self._left - 1)
        return first

"""What `evaluate bases` found: as a table, a sentence, a JSON file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import atomic_file
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits
from genossm.evaluation.bootstrap import interval_or_null, interval_text

FORMAT, FORMAT_VERSION = "genossm-bases", 1
BLOCK = 10_000


@dataclass(frozen=True)
class MethodBits:
    """bits: per base.   interval: 95 %, block bootstrap; NaN where there are too few blocks.
    details: what kind of method it is.
    """

    name: str
    bits: float
    interval: tuple[float, float]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Bits per base of the model minus those of a Markov model (negative: the model is better), with its interval."""

    name: str
    bits: float
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class BasesReport:
    """methods: the model first.   block_bits: (blocks, methods), NaN where a block has no scored base.

    mask_fraction: share of the bases that were hidden and judged; None for a causal model, judged on all.
    block: bases of a block.
    """

    splits: Splits
    context: int | None
    scored_bases: int
    methods: tuple[MethodBits, ...]
    differences: tuple[Difference, ...]
    block_places: tuple[tuple[str, int], ...]
    block_counts: NDArray[np.int64]
    block_bits: NDArray[np.float64]
    mask_fraction: float | None = None
    block: int = BLOCK

    @property
    def objective(self) -> str:
        """What the model predicts, "causal" or "masked"; figures of the two are no match for each other."""
        return "causal" if self.mask_fraction is None else "masked"

    @property
    def unit(self) -> str:
        """What the figures count."""
        return "bits per base" if self.mask_fraction is None else "masked bits per base"

    @property
    def best_markov(self) -> MethodBits | None:
        """The Markov model with the fewest bits on the test regions themselves, the hardest to beat.

        Of those that read what the model reads: one that sees whole flanks where the model sees masks is no rival.
        """
        rivals = (method for method in self.methods[1:] if method.details.get("flanks") != "unmasked")
        return min(rivals, key=lambda method: method.bits, default=None)

    @property
    def verdict(self) -> str:
        """ "beats" or "does not beat" the best Markov model, "undecided" if the difference's interval holds 0.

        Undecided too where there are too few blocks for an interval.
        """
        best = self.best_markov
        if best is None:
            return "not compared"
        low, high = next(d.interval for d in self.differences if d.name == best.name)
        return "beats" if high < 0 else "does not beat" if low > 0 else "undecided"

    def sentence(self) -> str:
        """The verdict in words."""
        best = self.best_markov
        if best is None:
            return f"The model needs {self.methods[0].bits:.4f} {self.unit}; no Markov model was asked for."
        difference = next(d for d in self.differences if d.name == best.name)
        side = "fewer" if difference.bits < 0 else "more"
        if math.isnan(difference.interval[0]):
            return (
                f"The model needs {abs(difference.bits):.4f} {self.unit} {side} than the best Markov model "
                f"({best.name}), undecided: {self._too_few_blocks()}"
            )
        numbers = f"{abs(difference.bits):.4f} {self.unit} (95 % interval {interval_text(difference.interval, '+.4f')})"
        if self.verdict == "beats":
            return f"The model beats the best Markov model ({best.name}): {numbers} {side}."
        if self.verdict == "does not beat":
            return f"The model does NOT beat the best Markov model ({best.name}): {numbers} {side}."
        return f"The model and the best Markov model ({best.name}) cannot be told apart: {numbers} {side}."

    def _too_few_blocks(self) -> str:
        blocks = int(np.count_nonzero(self.block_counts))
        return (
            f"only {blocks} {'block' if blocks == 1 else 'blocks'} of {self.block:,} bases, so there is no interval. "
            "Choose a longer region or a smaller --block."
        )

    def table(self) -> str:
        """One line a method, best first, tab-free columns."""
        differences = {d.name: d for d in self.differences}
        width = max(18, *(len(method.name) + 2 for method in self.methods))
        lines = [f"{'method':<{width}}{'bits/base':>10}  {'95 % interval':<18}  model minus it"]
        for method in sorted(self.methods, key=lambda m: m.bits):
            line = f"{method.name:<{width}}{method.bits:>10.4f}  {interval_text(method.interval, '.4f'):<16}"
            if method.name in differences:
                d = differences[method.name]
                line += f"    {d.bits:+.4f} ({interval_text(d.interval, '+.4f')})"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds, without provenance."""
        names = [method.name for method in self.methods]
        columns = {name: _rounded(self.block_bits[:, i]) for i, name in enumerate(names)}
        best = self.best_markov
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "objective": self.objective,
            **({} if self.mask_fraction is None else {"mask_fraction": self.mask_fraction}),
            "regions": {
                name: [str(interval) for interval in getattr(self.splits, name)]
                for name in ("train", "validation", "test")
            },
            "context": "whole" if self.context is None else self.context,
            "scored_bases": self.scored_bases,
            "methods": [
                {"name": m.name, "bits_per_base": m.bits, "interval": interval_or_null(m.interval), **m.details}
                for m in self.methods
            ],
            "differences": [
                {"method": d.name, "bits_per_base": d.bits, "interval": interval_or_null(d.interval)}
                for d in self.differences
            ],
            "best_markov": None if best is None else best.name,
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "blocks": {
                "contig": [contig for contig, _ in self.block_places],
                "start0": [start for _, start in self.block_places],
                "scored_bases": self.block_counts.tolist(),
                "bits_per_base": columns,
            },
        }


def write_report(
    report: BasesReport, path: str | os.PathLike[str], *, provenance: Provenance, force: bool = False
) -> None:
    """Write the JSON file, whole or not at all. Raises: OutputExistsError without `force`."""
    with atomic_file(path, force=force) as temporary:
        temporary.write_text(json.dumps({**report.as_dict(), "provenance": provenance.as_dict()}, indent=1) + "\n")


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 5) for value in values]

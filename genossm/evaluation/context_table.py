"""Methods by context side by side: bits with intervals, and what separates them, on exactly the same bases."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.bootstrap import block_bootstrap, interval_or_null, percentile_interval
from genossm.evaluation.context_file import ContextBits

ALL = "all"
SHORT = 1024
FORMAT, FORMAT_VERSION = "genossm-context-table", 1


@dataclass(frozen=True)
class Figure:
    """bits: per base, or a difference of two.   interval: 95 %, resampled blocks; NaN where these are too few.
    bases: scored.
    """

    bits: float
    interval: tuple[float, float]
    bases: int

    def as_dict(self) -> dict[str, Any]:
        return {"bits_per_base": self.bits, "interval": interval_or_null(self.interval), "bases": self.bases}


@dataclass(frozen=True)
class Reading:
    """A method at a context: what one side of a difference is."""

    method: str
    context: int

    def __str__(self) -> str:
        return f"{self.method} @ {self.context:,}"


@dataclass(frozen=True)
class Difference:
    """Bits of `left` minus bits of `right`, a figure each subset of places: negative where `left` is better."""

    left: Reading
    right: Reading
    figures: Mapping[str, Figure]


class Comparison:
    """All methods of one objective, judged on the same bases.

    Raises: ConfigError if the files were not, naming the first that differs.
    """

    def __init__(self, files: Sequence[ContextBits], *, replicates: int = 2000, seed: int = 0) -> None:
        self.files = tuple(files)
        _require_same_bases(self.files)
        self.objective = files[0].objective
        self._readings = [Reading(file.name, context) for file in files for context in file.contexts]
        self._replicates, self._seed = replicates, seed
        self.subsets = _subsets(files[0].classes)
        self._sums: dict[str, tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]] = {}

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(map(str, self.files[0].regions))

    @property
    def models(self) -> tuple[ContextBits, ...]:
        return tuple(file for file in self.files if file.details.get("kind") == "model")

    @property
    def baselines(self) -> tuple[ContextBits, ...]:
        return tuple(file for file in self.files if file.details.get("kind") != "model")

    @property
    def contexts(self) -> tuple[int, ...]:
        """Every context that some method was judged at."""
        return tuple(sorted({context for file in self.files for context in file.contexts}))

    def figure(self, reading: Reading, subset: str = ALL) -> Figure | None:
        """Bits of a method at a context over a subset of places; None where no base is."""
        return self._figure(subset, {reading: 1})

    def difference(self, left: Reading, right: Reading) -> Difference:
        """`left` minus `right` over every subset that holds a base."""
        figures = {subset: self._figure(subset, {left: 1, right: -1}) for subset in self.subsets}
        return Difference(left, right, {name: figure for name, figure in figures.items() if figure is not None})

    def best_baseline(self, context: int) -> Reading | None:
        """The baseline with the fewest bits over all places at this context."""
        found = [Reading(file.name, context) for file in self.baselines if context in file.contexts]
        return min(found, key=lambda reading: self._bits(reading), default=None)

    def differences(self) -> list[Difference]:
        """What context buys each method, whether a model beats the best baseline, and what separates the models."""
        pairs: list[tuple[Reading, Reading]] = []
        for file in self.files:
            longest, short = _longest_and_short(file)
            # Count tables see no more of a longer window.
            if not np.array_equal(*(file.nats[file.contexts.index(context)] for context in (longest, short))):
                pairs.append((Reading(file.name, longest), Reading(file.name, short)))
        for model in self.models:
            longest, short = _longest_and_short(model)
            for context in dict.fromkeys((longest, short)):
                best = self.best_baseline(context)
                if best is not None:
                    pairs.append((Reading(model.name, context), best))
        for one, other in itertools.combinations(self.models, 2):
            sides = itertools.product(_longest_and_short(one), _longest_and_short(other))
            pairs += [(Reading(one.name, left), Reading(other.name, right)) for left, right in dict.fromkeys(sides)]
        return [self.difference(left, right) for left, right in pairs]

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds of this objective."""
        return {
            "objective": self.objective,
            "regions": list(self.regions),
            "block": self.files[0].block,
            "methods": [
                {
                    "name": file.name,
                    **file.details,
                    "subsets": {
                        subset: [
                            {"context": context, **figure.as_dict()}
                            for context in file.contexts
                            if (figure := self.figure(Reading(file.name, context), subset))
                        ]
                        for subset in self.subsets
                    },
                }
                for file in self.files
            ],
            "differences": [
                {
                    "left": vars(difference.left),
                    "right": vars(difference.right),
                    "subsets": {name: figure.as_dict() for name, figure in difference.figures.items()},
                }
                for difference in self.differences()
            ],
        }

    def _bits(self, reading: Reading) -> float:
        figure = self.figure(reading)
        assert figure is not None  # a file without scored bases is not written
        return figure.bits

    def _figure(self, subset: str, signs: Mapping[Reading, int]) -> Figure | None:
        sums, counts, resampled = self._of(subset)
        if not counts.sum():
            return None
        weights = np.zeros(len(self._readings))
        for reading, sign in signs.items():
            weights[self._index(reading)] += sign
        bits = float(sums.sum(axis=0) @ weights / counts.sum())
        return Figure(bits, percentile_interval(resampled @ weights), int(counts.sum()))

    def _of(self, subset: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Bits (blocks, readings), bases (blocks,) and resampled means (replicates, readings) over a subset."""
        if subset not in self._sums:
            chosen = list(self.subsets[subset])
            parts = [file.nats[:, :, chosen].sum(axis=2).T for file in self.files]
            sums = np.concatenate(parts, axis=1) / np.log(2.0)
            counts = self.files[0].counts[:, chosen].sum(axis=1)
            resampled = np.zeros((0, sums.shape[1]))
            if counts.sum():
                resampled = block_bootstrap(sums, counts, replicates=self._replicates, seed=self._seed)
            self._sums[subset] = sums, counts, resampled
        return self._sums[subset]

    def _index(self, reading: Reading) -> int:
        if reading not in self._readings:
            raise ConfigError(f"There is no {reading}; there are {', '.join(map(str, self._readings))}.")
        return self._readings.index(reading)


def compare(files: Sequence[ContextBits], *, replicates: int = 2000, seed: int = 0) -> list[Comparison]:
    """One comparison an objective, causal first."""
    groups = [[file for file in files if file.objective == objective] for objective in ("causal", "masked")]
    return [Comparison(group, replicates=replicates, seed=seed) for group in groups if group]


def _longest_and_short(file: ContextBits) -> tuple[int, int]:
    """The longest context that a method was judged at, and the one nearest to SHORT."""
    return max(file.contexts), min(file.contexts, key=lambda context: abs(context - SHORT))


def _subsets(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name to the classes of places that it joins: all of them, and those that share a word between semicolons."""
    words = dict.fromkeys(word for name in classes for word in name.split("; "))
    joined = {word: tuple(i for i, name in enumerate(classes) if word in name.split("; ")) for word in words}
    return {ALL: tuple(range(len(classes))), **(joined if len(classes) > 1 else {})}


def _require_same_bases(files: Sequence[ContextBits]) -> None:
    first = files[0]
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two files share a name among {', '.join(names)}. Measure one again with another --name.")
    for file in files[1:]:
        differing = [
            what for what in ("regions", "block", "classes") if getattr(file, what) != getattr(first, what)
        ]  # fmt: skip
        if differing or not np.array_equal(file.counts, first.counts):
            what = ", ".join(differing) or "scored bases"
            raise ConfigError(
                f"{file.name} and {first.name} were not judged on the same bases: {what} differ. Measure both with the "
                "same --region, --block, --places, --mask-fraction and --seed."
            )

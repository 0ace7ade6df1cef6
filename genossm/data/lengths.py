"""Windows that grow in the course of a run: which length, how many at once, at which step.

A run is a row of stages; the last one has no end of its own. Samples are numbered through the stages, so that a step's
windows are a pure function of seed and step, within a stage and from one to the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genossm.data.windows import WindowPlan
from genossm.sequence.interval import Interval

_WORD = 1 << 32


@dataclass(frozen=True)
class Stage:
    """window: bases.   batch: windows a step, over all devices.   micro_batch: windows that a device reads at once,
    None for its whole share.   steps: None for as long as the run goes on, which only the last stage may.
    """

    window: int
    batch: int
    micro_batch: int | None = None
    steps: int | None = None

    @property
    def tokens_per_step(self) -> int:
        """Bases read in a step, over all devices."""
        return self.batch * self.window


class Lengths:
    """What a step of a run reads.

    Raises: ValueError unless every stage but the last has steps, and the last has none.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        *ended, last = stages
        if any(stage.steps is None for stage in ended) or last.steps is not None:
            raise ValueError("Every stage but the last has a number of steps, and the last has none.")
        self.stages = tuple(stages)
        # First step, sample and base of each stage.
        self._steps, self._samples, self._tokens = [0], [0], [0]
        for stage in ended:
            steps = stage.steps or 0
            self._steps.append(self._steps[-1] + steps)
            self._samples.append(self._samples[-1] + steps * stage.batch)
            self._tokens.append(self._tokens[-1] + steps * stage.tokens_per_step)

    @classmethod
    def constant(cls, window: int, batch: int) -> Lengths:
        """One window length for the whole run."""
        return cls([Stage(window, batch)])

    def at(self, step: int) -> Stage:
        """The stage that step number `step` (from 0) belongs to."""
        return self.stages[bisect_right(self._steps, step) - 1]

    def samples(self, step: int) -> range:
        """Numbers of the samples that a step reads."""
        number = bisect_right(self._steps, step) - 1
        batch = self.stages[number].batch
        first = self._samples[number] + (step - self._steps[number]) * batch
        return range(first, first + batch)

    def place(self, sample: int) -> tuple[int, int]:
        """The stage (its index) that a sample belongs to, and the sample's number within it."""
        number = bisect_right(self._samples, sample) - 1
        return number, sample - self._samples[number]

    def tokens(self, steps: int) -> int:
        """Bases read in the first `steps` steps, over all devices."""
        number = bisect_right(self._steps, steps) - 1
        return self._tokens[number] + (steps - self._steps[number]) * self.stages[number].tokens_per_step

    def steps_for(self, tokens: int) -> int:
        """Fewest steps that read at least so many bases."""
        number = bisect_right(self._tokens, tokens) - 1
        rest = tokens - self._tokens[number]
        return self._steps[number] - (-rest // self.stages[number].tokens_per_step)

    def is_boundary(self, steps: int) -> bool:
        """Whether a stage ends with step number `steps`, counted from 1."""
        return steps in self._steps[1:]


class StagedWindows:
    """A plan made of one plan a stage, each asked by the sample's number within the stage.

    make: the plan of a stage from its window and seed. The first stage has `seed` itself and every other one a stream
    of its own, or the same places would come up again, only longer.
    window: the longest. epoch_size, excluded: of the last stage.
    """

    def __init__(self, lengths: Lengths, make: Callable[[int, int], WindowPlan], seed: int) -> None:
        self.lengths = lengths
        self.plans = [make(stage.window, seed + number * _WORD) for number, stage in enumerate(lengths.stages)]
        self.window = max(stage.window for stage in lengths.stages)
        self.epoch_size, self.excluded = self.plans[-1].epoch_size, self.plans[-1].excluded
        self.pads = any(plan.pads for plan in self.plans)

    def length(self, sample: int) -> int:
        return self.lengths.stages[self.lengths.place(sample)[0]].window

    def interval(self, sample: int) -> Interval:
        number, within = self.lengths.place(sample)
        return self.plans[number].interval(within)

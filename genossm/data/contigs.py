"""Whole contigs, read in order: each row of a batch walks along one and hands its state from segment to segment.

What a row reads at a step is a pure function of seed and sample number, as for windows. Stretches of a contig (a
region, or what long runs of unknown letters leave of it) are cut into segments from their beginning; the last one is
shorter.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genossm.core.errors import IntervalError
from genossm.data.batch import Batch, CausalCollator
from genossm.data.dataset import WindowItem
from genossm.data.soft_mask import SoftMaskWeights
from genossm.data.unknown import UnknownRuns
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer

logger = logging.getLogger(__name__)

# The word of the counter that keeps walks apart from windows (0), the order of windows (1) and masks (2).
_STREAM = 3
# The sample number of a row that reads nothing.
IDLE = -1


@dataclass(frozen=True)
class Segment:
    """interval: its bases, in reading direction of its strand.   begins: no state is handed on to it."""

    interval: Interval
    begins: bool


class SegmentPlan(Protocol):
    """What the dataset asks of a plan."""

    window: int

    def segment(self, sample: int) -> Segment:
        """What a sample number >= 0 stands for."""
        ...


def stretches(genome: Genome, regions: Iterable[Interval], gap: int) -> tuple[Interval, ...]:
    """`regions` without runs of at least `gap` letters other than A, C, G, T.

    A state that is carried over such a run has nothing to tell, and a model would learn to count Ns.
    """
    found: list[Interval] = []
    for region in regions:
        runs = UnknownRuns.scan(genome, region)
        start = region.start
        for first, end in zip(runs.starts.tolist(), runs.ends.tolist()):
            if end - first < gap:
                continue
            if first > start:
                found.append(Interval(region.contig, start, first))
            start = end
        if start < region.end:
            found.append(Interval(region.contig, start, region.end))
    return tuple(found)


class ContigWalks:
    """Endless walks of `rows` rows, for training.

    An epoch reads every stretch once. The stretches are laid end to end in a new order and on new strands, the whole is
    turned by a random number of segments, and each row walks an equal part: so rows begin in the middle of a stretch,
    once an epoch, and everywhere else at its beginning. A row that comes to the end of a stretch goes on with the next.
    window: bases of a segment.   rows: over all devices.   Samples are numbered step by step, `rows` a step.
    epoch_size: samples of an epoch; a few segments come twice where the rows do not divide them.
    excluded: bases in runs of at least a window of letters other than A, C, G, T, which are left out.
    Raises: IntervalError if nothing is left, or there are fewer segments than rows.
    """

    def __init__(
        self,
        genome: Genome,
        regions: Sequence[Interval],
        window: int,
        *,
        rows: int,
        seed: int = 0,
        reverse_complement: bool = False,
    ) -> None:
        self.window, self.rows, self.seed, self.reverse_complement = window, rows, seed, reverse_complement
        self.stretches = _require_some(genome, regions, window)
        self.excluded = sum(map(len, regions)) - sum(map(len, self.stretches))
        if self.excluded:
            logger.info("%d bases in long runs of letters other than A, C, G, T are left out of walks.", self.excluded)
        self._counts = np.array([-(-len(stretch) // window) for stretch in self.stretches], np.int64)
        self._total = int(self._counts.sum())
        if self._total < rows:
            raise IntervalError(
                f"{rows} rows cannot walk {self._total} segments of {window:,} bases. "
                "Choose a smaller batch, a shorter window or longer regions."
            )
        self.steps_per_epoch = -(-self._total // rows)
        self.epoch_size = self.steps_per_epoch * rows

    def segment(self, sample: int) -> Segment:
        step, row = divmod(sample, self.rows)
        epoch, step = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, len(self._counts))
        ends = np.cumsum(self._counts[order.stretches])
        place = (row * self.steps_per_epoch + step + order.turn(self._total)) % self._total
        entry = int(np.searchsorted(ends, place, side="right"))
        chosen = int(order.stretches[entry])
        number = place - int(ends[entry] - self._counts[chosen])
        minus = self.reverse_complement and bool(order.minus[chosen])
        interval = _cut(self.stretches[chosen], number, self.window, minus=minus)
        return Segment(interval, begins=number == 0 or step == 0)

    def interval(self, sample: int) -> Interval:
        """The bases of a sample."""
        return self.segment(sample).interval


class ContigSweep:
    """Every stretch once from its beginning to its end, for validation: what is judged has seen all that came before.

    Each row takes whole stretches, the longest first, so that a result does not depend on the number of rows. Rows that
    are done are left out of a batch: they are its last ones.
    """

    def __init__(self, genome: Genome, regions: Sequence[Interval], window: int) -> None:
        self.window = window
        self.stretches = _require_some(genome, regions, window)
        self._segments: list[Segment] = []
        self._samples: list[range] = []
        for stretch in self.stretches:
            first, count = len(self._segments), -(-len(stretch) // window)
            self._samples.append(range(first, first + count))
            self._segments += [Segment(_cut(stretch, n, window, minus=False), begins=n == 0) for n in range(count)]
        self.epoch_size = len(self._segments)
        self.excluded = sum(map(len, regions)) - sum(map(len, self.stretches))

    def segment(self, sample: int) -> Segment:
        return self._segments[sample]

    def interval(self, sample: int) -> Interval:
        """The bases of a sample."""
        return self.segment(sample).interval

    def batches(self, rows: int, *, rank: int = 0, ranks: int = 1) -> list[list[int]]:
        """Sample numbers of the batches of one rank, in order; `rows` are those of one rank.

        A rank for which no stretch is left has one batch of one row that is `IDLE`, since loaders may not be empty.
        """
        walks: list[list[int]] = [[] for _ in range(rows * ranks)]
        shortest = [(0, number) for number in range(len(walks))]
        for stretch in sorted(self._samples, key=len, reverse=True):
            length, number = heapq.heappop(shortest)
            walks[number] += stretch
            heapq.heappush(shortest, (length + len(stretch), number))
        mine = sorted((walk for walk in walks[rank::ranks] if walk), key=len, reverse=True)
        if not mine:
            return [[IDLE]]
        steps = len(mine[0])
        return [[walk[step] for walk in mine if step < len(walk)] for step in range(steps)]


@dataclass(frozen=True, eq=False)
class SegmentItem(WindowItem):
    """ids: what came before ([BOS] at a beginning, else a base), one token a base, then [PAD] up to the window."""

    begins: bool


class SegmentDataset(Dataset[SegmentItem]):
    """Item n is the segment that the plan gives sample number n; `IDLE` is one without a base to predict.

    soft_mask: what soft-masked bases count; None if all bases count alike.
    """

    def __init__(
        self,
        genome: Genome,
        plan: SegmentPlan,
        tokenizer: NucleotideTokenizer,
        soft_mask: SoftMaskWeights | None = None,
    ) -> None:
        self.genome, self.plan, self.tokenizer, self.soft_mask = genome, plan, tokenizer, soft_mask

    def __getitem__(self, index: int) -> SegmentItem:
        segment = self.plan.segment(max(index, 0))
        interval = segment.interval
        ids = np.full(self.plan.window + 1, self.tokenizer.pad_id, np.uint8)
        if index == IDLE:
            return SegmentItem(ids, interval, index, begins=True)
        filled = ids[: len(interval) + 1]
        if segment.begins:
            ids[0] = self.tokenizer.bos_id
            self.genome.encode(interval, self.tokenizer, out=filled[1:])
        else:
            self.genome.encode(_with_the_base_before(interval), self.tokenizer, out=filled)
        weights = None if self.soft_mask is None else self.soft_mask.along(interval, self.plan.window)
        return SegmentItem(ids, interval, index, segment.begins, weights=weights)


@dataclass(frozen=True, eq=False)
class SegmentBatch(Batch):
    """begins: rows to which no state is handed on. It stays on the CPU."""

    begins: Bool[Tensor, " batch"]

    def split(self, rows: int) -> tuple[Batch, ...]:
        """The batch in parts of at most so many rows, in order."""
        parts = [slice(first, first + rows) for first in range(0, len(self.input_ids), rows)]
        return tuple(
            replace(
                self,
                input_ids=self.input_ids[part],
                targets=self.targets[part],
                intervals=self.intervals[part],
                begins=self.begins[part],
                weights=None if self.weights is None else self.weights[part],
            )
            for part in parts
        )


class SegmentCollator:
    """As `CausalCollator`; letters other than A, C, G, T and the rest of a window behind a contig's end are no targets.

    >>> from genossm.sequence import NucleotideTokenizer
    >>> tokenizer = NucleotideTokenizer(special_tokens="bos")
    >>> ids = np.concatenate([tokenizer.encode("AC"), [tokenizer.pad_id]]).astype(np.uint8)
    >>> batch = SegmentCollator(tokenizer)([SegmentItem(ids, Interval("20", 0, 1), 0, False)])
    >>> batch.targets.tolist(), batch.begins.tolist()
    ([[1, -100]], [False])
    """

    def __init__(self, tokenizer: NucleotideTokenizer) -> None:
        self._windows = CausalCollator(tokenizer)

    def __call__(self, items: Sequence[SegmentItem]) -> SegmentBatch:
        windows = self._windows(items)
        begins = torch.tensor([item.begins for item in items])
        return SegmentBatch(windows.input_ids, windows.targets, windows.intervals, begins, weights=windows.weights)


@dataclass(frozen=True, eq=False)
class _Order:
    """Of one epoch. stretches: their order.   minus: whether each is read on the minus strand, by its own number."""

    stretches: NDArray[np.int64]
    minus: NDArray[np.bool_]
    share: float

    def turn(self, total: int) -> int:
        return int(self.share * total)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> _Order:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, _STREAM]))
    return _Order(generator.permutation(count), generator.integers(2, size=count) == 1, float(generator.random()))


def _cut(stretch: Interval, number: int, window: int, *, minus: bool) -> Interval:
    """Segment `number` of a stretch, counted from where reading begins."""
    if minus:
        end = stretch.end - number * window
        return Interval(stretch.contig, max(stretch.start, end - window), end, "-")
    start = stretch.start + number * window
    return Interval(stretch.contig, start, min(stretch.end, start + window))


def _with_the_base_before(interval: Interval) -> Interval:
    if interval.strand == "-":
        return replace(interval, end=interval.end + 1)
    return replace(interval, start=interval.start - 1)


def _require_some(genome: Genome, regions: Sequence[Interval], gap: int) -> tuple[Interval, ...]:
    found = stretches(genome, regions, gap)
    if not found:
        raise IntervalError(
            f"{', '.join(map(str, regions[:3]))}: nothing but runs of {gap:,} or more letters other than A, C, G, T. "
            "Choose other regions."
        )
    return found

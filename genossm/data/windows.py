"""Which window a sample number stands for: a pure function of seed and number, whatever worker asks.

Sample numbers run on over epochs: number n is item `n % epoch_size` of epoch `n // epoch_size`. So the order is the
same at any worker count, and a run that was stopped goes on by starting at the next number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError, IntervalError
from genossm.data.unknown import UnknownRuns
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

logger = logging.getLogger(__name__)

ShortRegions = Literal["raise", "skip", "pad"]
Tails = Literal["drop", "shift", "pad"]
# The word of the counter that keeps shifts of tiles apart from windows (0), their order (1), masks and walks.
_SHIFTS = 4


class WindowPlan(Protocol):
    """What a dataset asks of a plan.   pads: whether an interval may be shorter than its window, the rest being N."""

    window: int
    epoch_size: int
    excluded: int
    pads: bool

    def length(self, sample: int) -> int:
        """Bases of a sample's window."""
        ...

    def interval(self, sample: int) -> Interval:
        """The window of a sample number >= 0; its strand says whether it is to be read reverse-complemented."""
        ...


class RandomWindows:
    """Windows at uniformly random starts within `regions`; an epoch is as many as fit side by side.

    window: bases. max_n_fraction: windows with a larger share of letters other than A, C, G, T are never drawn.
    short_regions: regions shorter than the window are an error ("raise"), left out and logged ("skip"), or read whole
    with N behind them ("pad"), as often as makes their bases as frequent as others.
    reverse_complement: read every window on a random strand. excluded: the number of starts that the limit took out.
    Raises: IntervalError if a region is too short, or nothing is left; ConfigError for a bad option.
    """

    def __init__(
        self,
        genome: Genome,
        regions: Sequence[Interval],
        window: int,
        *,
        seed: int = 0,
        reverse_complement: bool = False,
        max_n_fraction: float = 0.1,
        short_regions: ShortRegions = "raise",
    ) -> None:
        regions = _fitting(genome, regions, window, max_n_fraction, short_regions)
        self.window, self.seed, self.reverse_complement = window, seed, reverse_complement
        limit = int(max_n_fraction * window)
        self.pads = any(len(region) < window for region in regions)
        ranges = [(region, *span) for region in regions for span in _allowed(genome, region, window, limit)]
        self._regions = [region for region, _, _ in ranges]
        self._firsts = np.array([first for _, first, _ in ranges], np.int64)
        self._cumulative = np.cumsum([0, *(end - first for _, first, end in ranges)])
        possible = sum(_draws(region, window) for region in regions)
        self.excluded = possible - int(self._cumulative[-1])
        _report_excluded(self.excluded, possible, window, max_n_fraction, regions)
        self.epoch_size = max(1, sum(len(region) for region in regions) // window)

    def interval(self, sample: int) -> Interval:
        generator = _generator(self.seed, sample)
        draw = int(generator.integers(self._cumulative[-1]))
        entry = int(np.searchsorted(self._cumulative, draw, side="right")) - 1
        region, start = self._regions[entry], int(self._firsts[entry] + draw - self._cumulative[entry])
        strand = "-" if self.reverse_complement and generator.integers(2) else "+"
        if len(region) < self.window:
            return Interval(region.contig, region.start, region.end, strand)
        return Interval(region.contig, start, start + self.window, strand)

    def length(self, sample: int) -> int:  # noqa: ARG002
        return self.window


class TiledWindows:
    """Windows every `stride` bases from each region's start.

    stride: bases, the window itself unless given. shuffle: a new order each epoch.
    tails: what a region's end holds that is shorter than a window is left out ("drop"), read with bases before it
    ("shift") or with N behind it ("pad").
    jitter: each window is moved by up to so many bases to either side, drawn from seed and sample number, within its
    region; one that would have too many other letters there stays.
    The rest as for RandomWindows; `excluded` counts windows.
    Raises: IntervalError if a region is too short, or no window is left; ConfigError for a bad option.
    """

    def __init__(
        self,
        genome: Genome,
        regions: Sequence[Interval],
        window: int,
        *,
        stride: int | None = None,
        tails: Tails = "drop",
        jitter: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        reverse_complement: bool = False,
        max_n_fraction: float = 0.1,
        short_regions: ShortRegions = "raise",
    ) -> None:
        regions = _fitting(genome, regions, window, max_n_fraction, short_regions)
        stride = window if stride is None else stride
        if stride < 1:
            raise ConfigError(f"A stride must be at least 1 base, got {stride}.")
        if tails not in get_args(Tails) or jitter < 0:
            raise ConfigError(
                f"tails is {tails!r} and jitter {jitter}; wanted one of {', '.join(get_args(Tails))}, and 0 or more."
            )
        self.window, self.seed, self.reverse_complement, self.shuffle = window, seed, reverse_complement, shuffle
        self.jitter, self._limit = jitter, int(max_n_fraction * window)
        self._regions, self._unknown = regions, [UnknownRuns.scan(genome, region) for region in regions]
        starts, numbers, possible = [], [], 0
        for number, (region, unknown) in enumerate(zip(regions, self._unknown)):
            tiled = _tiles(region, window, stride, tails)
            kept = tiled[unknown.count(tiled, np.minimum(tiled + window, region.end)) <= self._limit]
            starts.append(kept)
            numbers.append(np.full(len(kept), number, np.int64))
            possible += len(tiled)
        self._starts, self._numbers = np.concatenate(starts), np.concatenate(numbers)
        self.pads = tails == "pad" or any(len(region) < window for region in regions)
        self.epoch_size = len(self._starts)
        self.excluded = possible - self.epoch_size
        _report_excluded(self.excluded, possible, window, max_n_fraction, regions)

    def interval(self, sample: int) -> Interval:
        index = sample_order(self.seed, sample, self.epoch_size) if self.shuffle else sample % self.epoch_size
        start, number = int(self._starts[index]), int(self._numbers[index])
        region = self._regions[number]
        if self.jitter:
            start = self._shifted(start, number, sample)
        strand = sample_strand(self.seed, sample) if self.reverse_complement else "+"
        return Interval(region.contig, start, min(start + self.window, region.end), strand)

    def length(self, sample: int) -> int:  # noqa: ARG002
        return self.window

    def _shifted(self, start: int, number: int, sample: int) -> int:
        region = self._regions[number]
        generator = np.random.Generator(np.random.Philox(key=[self.seed, sample], counter=[0, 0, 0, _SHIFTS]))
        shift = int(generator.integers(-self.jitter, self.jitter + 1))
        moved = max(region.start, min(start + shift, region.end - self.window))
        first = np.array([moved])
        unknown = self._unknown[number].count(first, np.minimum(first + self.window, region.end))
        return moved if unknown[0] <= self._limit else start


def _tiles(region: Interval, window: int, stride: int, tails: Tails) -> NDArray[np.int64]:
    """Starts of the windows of a region."""
    tiled = np.arange(region.start, region.end - window + 1, stride, dtype=np.int64)
    covered = int(tiled[-1]) + window if len(tiled) else region.start
    if covered == region.end or (tails == "drop" and len(tiled)):
        return tiled
    if not len(tiled):
        return np.array([region.start], np.int64)
    tail = region.end - window if tails == "shift" else int(tiled[-1]) + stride
    return np.append(tiled, tail) if tail < region.end else tiled


def _draws(region: Interval, window: int) -> int:
    """How many of the draws of a random plan a region gets: one a start, or, padded, as many as a window's bases."""
    return max(len(region) - window + 1, window if len(region) < window else 0)


def sample_order(seed: int, sample: int, size: int) -> int:
    """Which of `size` items a sample number stands for, where every epoch has them all in an order of its own."""
    epoch, index = divmod(sample, size)
    return int(_permutation(seed, epoch, size)[index])


def sample_strand(seed: int, sample: int) -> Literal["+", "-"]:
    """A strand drawn for a sample number."""
    return "-" if _generator(seed, sample).integers(2) else "+"


def _generator(seed: int, sample: int) -> np.random.Generator:
    # A counter-based generator keyed by both numbers: every sample has its own stream, with no state to carry.
    return np.random.Generator(np.random.Philox(key=[seed, sample]))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    # A third word keeps the epoch's stream apart from the sample of the same number.
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 1])).permutation(size)


def _fitting(
    genome: Genome, regions: Sequence[Interval], window: int, max_n_fraction: float, short_regions: ShortRegions
) -> list[Interval]:
    """The regions that hold a window; the options are checked besides."""
    if window < 1:
        raise ConfigError(f"A window must have at least 1 base, got {window}.")
    if not 0.0 <= max_n_fraction <= 1.0:
        raise ConfigError(f"max_n_fraction is a share from 0 to 1, got {max_n_fraction}.")
    if short_regions not in get_args(ShortRegions):
        raise ConfigError(f"short_regions is {short_regions!r}; wanted one of {', '.join(get_args(ShortRegions))}.")
    short = [region for region in regions if len(region) < window and short_regions != "pad"]
    if short and (short_regions == "raise" or len(short) == len(regions)):
        region, length = short[0], genome.length(short[0].contig)
        what = f"contig {region.contig} has" if length < window else f"region {region} has"
        remedy = "Choose a shorter window or a longer region"
        raise IntervalError(
            f"A window of {window:,} bases does not fit: {what} {min(length, len(region)):,} bases. {remedy}"
            + (
                ", or leave short regions out (short_regions: skip, or pad)."
                if len(short) < len(regions)
                else ", or pad it (short_regions: pad)."
            )
        )
    if short:
        bases = sum(map(len, short))
        logger.warning(
            "%d of %d regions are left out, %d bases: they are shorter than a window of %d.",
            *(len(short), len(regions), bases, window),
        )
    return [region for region in regions if len(region) >= window or short_regions == "pad"]


def _allowed(genome: Genome, region: Interval, window: int, limit: int) -> list[tuple[int, int]]:
    """Ranges [first, end) of window starts within `region` that have at most `limit` unknown letters."""
    runs = UnknownRuns.scan(genome, region)
    if len(region) < window:
        unknown = runs.count(np.array([region.start]), np.array([region.end]))
        return [(region.start, region.start + _draws(region, window))] if unknown[0] <= limit else []
    end = region.end - window + 1
    if not len(runs):
        return [(region.start, end)]
    # Between these starts the number of unknown letters changes by the same -1, 0 or 1 from each to the next.
    edges = np.concatenate([runs.starts, runs.ends, runs.starts - window, runs.ends - window, [region.start, end - 1]])
    knots = np.unique(edges[(edges >= region.start) & (edges < end)])
    excess = runs.count(knots, knots + window) - limit
    left, right = knots, np.append(knots[1:], knots[-1])
    low, high = excess, np.append(excess[1:], excess[-1])
    kept = (low <= 0) | (high <= 0)
    firsts = np.where(low <= 0, left, right + high)[kept]
    ends = np.where(high <= 0, right, left - low)[kept] + 1
    # Neighbours that touch are one range.
    apart = firsts[1:] > ends[:-1]
    firsts, ends = firsts[np.append(True, apart)[: len(firsts)]], ends[np.append(apart, True)[: len(ends)]]
    return list(zip(firsts.tolist(), ends.tolist()))


def _report_excluded(
    excluded: int, possible: int, window: int, max_n_fraction: float, regions: Sequence[Interval]
) -> None:
    where = ", ".join(map(str, regions[:3])) + (", ..." if len(regions) > 3 else "")
    if excluded == possible:
        raise IntervalError(
            f"Every window of {window:,} bases in {where} has more than {max_n_fraction:.0%} letters other than "
            "A, C, G, T (max_n_fraction). Choose other regions, or raise the limit."
        )
    if excluded:
        logger.info(
            "%s: %d of %d windows left out, over max_n_fraction = %g letters other than A, C, G, T.",
            where,
            excluded,
            possible,
            max_n_fraction,
        )

"""Windows around a place that may lie near a contig's end: what happens there is chosen, never silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError, IntervalError
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer

EdgePolicy = Literal["raise", "pad", "shift"]


@dataclass(frozen=True, slots=True)
class Window:
    """Bases of a contig with so many N `before` and `after` them, in reading direction of the interval's strand."""

    interval: Interval
    before: int = 0
    after: int = 0

    def __len__(self) -> int:
        return self.before + len(self.interval) + self.after


def window_around(genome: Genome, place: Interval, length: int, policy: EdgePolicy) -> Window:
    """The window of `length` bases whose middle is the middle of `place`, on its strand.

    Where it would leave the contig: "raise" is an error, "pad" fills with N, "shift" moves it just inside. Where the
    place's length and `length` are of different parity, the extra base is on the right of the plus strand.
    Raises: IntervalError under "raise", or under "shift" for a contig shorter than the window; ConfigError for a
    length below 1 or an unknown policy.
    """
    if length < 1 or policy not in get_args(EdgePolicy):
        raise ConfigError(
            f"A window of {length} bases with edge policy {policy!r} is impossible; wanted at least 1 base, and one of "
            f"{', '.join(get_args(EdgePolicy))}."
        )
    contig, limit = genome.resolve(place.contig), genome.length(place.contig)
    start = (place.start + place.end - length) // 2
    end = start + length
    if start >= 0 and end <= limit:
        return Window(Interval(contig, start, end, place.strand))
    if policy == "pad":
        left, right = max(0, -start), max(0, end - limit)
        before, after = (left, right) if place.strand == "+" else (right, left)
        return Window(Interval(contig, max(0, start), min(end, limit), place.strand), before, after)
    if policy == "shift" and length <= limit:
        start = min(max(0, start), limit - length)
        return Window(Interval(contig, start, start + length, place.strand))
    raise IntervalError(
        f"A window of {length:,} bases around {place} leaves contig {contig} of {genome.name}, which has {limit:,} "
        'bases. Choose a shorter window, or an edge policy ("pad" fills with N, "shift" moves the window inside).'
    )


def encode_window(genome: Genome, window: Window, tokenizer: NucleotideTokenizer) -> NDArray[np.uint8]:
    """Token ids (length,) of a window, N where it leaves the contig."""
    ids = np.full(len(window), tokenizer.n_id, np.uint8)
    genome.encode(window.interval, tokenizer, out=ids[window.before : len(ids) - window.after])
    return ids

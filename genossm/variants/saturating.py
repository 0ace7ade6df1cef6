"""Every substitution of every base of a region, scored: what a saturation experiment would measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant, reverse_complement
from genossm.variants.options import DEFAULT_CONTEXT, DEFAULT_HORIZON
from genossm.variants.scorer import score

_BASES = "ACGT"


@dataclass(frozen=True, eq=False)
class Saturation:
    """Scores of a region's substitutions, in the reading direction of the interval's strand.

    letters: the reference, upper case.   pos1: 1-based position of each letter; descending on the minus strand.
    scores: of replacing the letter by A, C, G, T, in nats, positive where the model finds the replacement likelier; 0
    at the reference letter itself, NaN where the reference is no A, C, G or T.
    strand_scores: what `scores` is the mean of: what the model finds on the plus strand, then, if it was asked for, on
    the minus strand.
    """

    interval: Interval
    letters: str
    pos1: Int[np.ndarray, " length"]
    scores: Float[np.ndarray, "length 4"]
    strand_scores: Float[np.ndarray, "strands length 4"]

    def importance(self) -> Float[np.ndarray, "length 4"]:
        """In the reference letter's column what replacing it loses on average, in nats; 0 in the other columns.

        Positive where the model finds the reference likelier than its three replacements; 0 where there is no score.
        """
        heights = np.zeros_like(self.scores)
        for row, letter in enumerate(self.letters):
            if letter in _BASES:
                heights[row, _BASES.index(letter)] = -self.scores[row].sum() / 3
        return heights

    def reverse_complement(self) -> Saturation:
        """The same scores as the other strand reads them: positions from the other end, A for T and C for G."""
        interval = self.interval
        turned = Interval(interval.contig, interval.start, interval.end, "-" if interval.strand == "+" else "+")
        # Bases stand in the order A, C, G, T, so that the complement is the opposite order.
        return Saturation(
            turned,
            reverse_complement(self.letters),
            self.pos1[::-1],
            self.scores[::-1, ::-1],
            self.strand_scores[:, ::-1, ::-1],
        )


def saturation(
    model: SequenceModel,
    genome: Genome,
    interval: Interval,
    *,
    context: int = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
) -> Saturation:
    """Score the three substitutions of every base of `interval` by the method of the model's own objective.

    interval: on the minus strand the result is that strand's: its letters, from the interval's end to its start. The
    strand that the model reads is another matter, `both_strands`; the options are those of `score`.
    Raises: ContigNotFoundError; IntervalError if it leaves the contig; what `score` raises.

    >>> saturation(model, genome, Interval.parse("20:1000201-1000210"), context=64).scores.shape
    (10, 4)
    """
    plus = Interval(interval.contig, interval.start, interval.end)
    letters = genome.fetch(plus).decode("ascii")
    starts = np.arange(interval.start, interval.end)
    pos1 = starts % genome.length(interval.contig) + 1
    places = [(row, column) for row, letter in enumerate(letters) for column in _replacements(letter)]
    variants = (Variant(plus.contig, int(pos1[row]), letters[row], _BASES[column]) for row, column in places)
    scored = score(
        model,
        genome,
        variants,
        context=context,
        horizon=horizon,
        both_strands=both_strands,
        batch_size=batch_size,
    )
    found = np.array([one.strand_scores for one in scored], dtype=np.float64)
    strand_scores = _as_maps(letters, places, found)
    result = Saturation(plus, letters, pos1, strand_scores.mean(axis=0), strand_scores)
    return result.reverse_complement() if interval.strand == "-" else result


def _replacements(letter: str) -> Iterator[int]:
    """Columns of the letters that can stand in place of a reference letter; none if it is no A, C, G or T."""
    if letter in _BASES:
        yield from (column for column, base in enumerate(_BASES) if base != letter)


def _as_maps(
    letters: str, places: list[tuple[int, int]], found: Float[np.ndarray, "substitutions strands"]
) -> Float[np.ndarray, "strands length 4"]:
    strands = found.shape[1] if found.ndim == 2 else 1
    maps = np.full((strands, len(letters), len(_BASES)), np.nan)
    known = np.array([letter in _BASES for letter in letters])
    maps[:, known] = 0.0
    if places:
        rows, columns = np.array(places).T
        maps[:, rows, columns] = found.T
    return maps

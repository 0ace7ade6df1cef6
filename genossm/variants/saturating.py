"""Every substitution of every base of a region, scored: what a saturation experiment would measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, reverse_complement
from genossm.sequence.interval import as_interval
from genossm.variants.given import require_model_and_genome
from genossm.variants.locate import Allele, ScoredAllele
from genossm.variants.options import DEFAULT_CONTEXT, DEFAULT_HORIZON, ScoringOptions
from genossm.variants.scorer import Scorer

_BASES = "ACGT"
_PIECE = 2048
_PIECES_A_WINDOW = 64


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


@dataclass(frozen=True, eq=False)
class Piece:
    """Some bases of a region on the plus strand.   letters, pos1: of each.   scored: of each, what putting A, C, G, T
    there scores; the letter itself scores 0, and next to a letter that is no base nothing has a score.
    """

    letters: str
    pos1: Int[np.ndarray, " length"]
    scored: list[list[ScoredAllele]]


def saturation(
    model: SequenceModel,
    genome: Genome,
    interval: Interval | str,
    *,
    context: int = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
) -> Saturation:
    """Score the three substitutions of every base of `interval` by the method of the model's own objective.

    interval: or a 1-based region, as in "chr1:1,000-2,000". On the minus strand the result is that strand's: its
    letters, from the interval's end to its start. The strand that the model reads is another matter, `both_strands`;
    the options are those of `score`.
    Raises: ContigNotFoundError; IntervalError if it leaves the contig; what `score` raises.

    >>> saturation(model, genome, Interval.parse("20:1000201-1000210"), context=64).scores.shape
    (10, 4)
    """
    require_model_and_genome("saturation", model, genome)
    interval = as_interval(interval)
    scorer = Scorer(model, genome, ScoringOptions(context, horizon, both_strands), batch_size=batch_size)
    return whole_map(interval, saturation_pieces(scorer, interval), strands=len(scorer.options.strands))


def saturation_pieces(scorer: Scorer, interval: Interval) -> Iterator[Piece]:
    """The substitutions of a region piece by piece, from its start to its end: memory does not grow with the region.

    Raises: ContigNotFoundError; IntervalError if it leaves the contig; what `score` raises.
    """
    genome, contig = scorer.genome, interval.contig
    letters = genome.fetch(Interval(contig, interval.start, interval.end)).decode("ascii")
    length, size = genome.length(contig), piece_length(scorer.options.usual_window)
    for first in range(0, len(letters), size):
        part = letters[first : first + size]
        pos1 = (interval.start + first + np.arange(len(part))) % length + 1
        alleles = (Allele(contig, int(place), letter, base) for place, letter in zip(pos1, part) for base in _BASES)
        scored = scorer.score([scorer.locate(one) for one in alleles])
        yield Piece(part, pos1, [scored[row : row + 4] for row in range(0, len(scored), 4)])


def piece_length(context: int) -> int:
    """Bases of a piece. A window is run again for every piece in it, which costs little next to the substitutions of
    so many bases, three alternatives each.
    """
    return max(_PIECE, context // _PIECES_A_WINDOW)


def whole_map(interval: Interval, pieces: Iterable[Piece], *, strands: int) -> Saturation:
    """The map of a region from its pieces, in the reading direction of the interval's strand.   strands: read."""
    plus = Interval(interval.contig, interval.start, interval.end)
    letters, pos1, found = "", [], []
    for piece in pieces:
        letters += piece.letters
        pos1.append(piece.pos1)
        unknown = (np.nan,) * strands
        found.append([[one.strand_scores or unknown for one in row] for row in piece.scored])
    strand_scores = np.moveaxis(np.concatenate(found).astype(np.float64), 2, 0)
    result = Saturation(plus, letters, np.concatenate(pos1), strand_scores.mean(axis=0), strand_scores)
    return result.reverse_complement() if interval.strand == "-" else result

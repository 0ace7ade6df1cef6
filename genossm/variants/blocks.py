"""How many records are scored together: the unit that shards, and runs that are resumed, do not divide."""

from __future__ import annotations

from collections.abc import Iterable

from genossm.variants.methods import Method
from genossm.variants.options import NEIGHBOURHOOD_GRID, ScoringOptions

_LARGEST = 8192
_SMALLEST = 256
# Reading a window costs its letters, and up to two windows of a block are read again for its neighbours. With this many
# times a window's letters in its alleles, a block pays under 3 % for that.
_WINDOWS = 64
# Letters between the state that an allele starts from and the allele, on average.
_APPROACH = 32


def block_records(options: ScoringOptions, methods: Iterable[Method]) -> int:
    """Records of a block: a power of two that depends on the options alone, so that equal runs have equal blocks.

    As few as windows that neighbours share allow, since an interrupted run loses the block that it was at.
    methods: those of the run.
    """
    an_allele = sum(_tokens(options, method) for method in methods)
    wanted = -(-_WINDOWS * options.usual_window // max(1, an_allele))
    return min(_LARGEST, max(_SMALLEST, 1 << (wanted - 1).bit_length()))


def _tokens(options: ScoringOptions, method: Method) -> int:
    """What an allele costs beside its window."""
    if method.has_horizon:
        return options.longest + _APPROACH
    if options.neighbours(method):
        return 2 * max(options.neighbourhood, method.flank) + NEIGHBOURHOOD_GRID
    return options.usual_window

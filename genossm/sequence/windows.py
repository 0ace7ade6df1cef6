"""Which window of the reference a position is scored in: fixed by the position alone, never by the file."""

from __future__ import annotations

from genossm.core.errors import IntervalError


def scoring_window(position0: int, context: int, contig_length: int, *, circular: bool = False) -> tuple[int, int]:
    """The window `(start, end)`, 0-based half-open, that a variant at `position0` is scored in.

    With context C it is `[kC/2, kC/2 + C)`, `k = max(0, floor((position0 - C/4) / (C/2)))`: neighbours half a context
    apart, every position at least C/4 from both ends of its window except at the contig's own ends, where the window
    is clipped. On a circular contig `end` may pass `contig_length`, which means that it goes on from 0, once around
    at most.

    Raises: IntervalError if the position is not on the contig or the context is no positive multiple of 4.
    """
    if context <= 0 or context % 4:
        raise IntervalError(
            f"A scoring context of {context} bases cannot be halved twice; wanted a positive multiple of 4."
        )
    if not 0 <= position0 < contig_length:
        raise IntervalError(f"Position {position0} (0-based) is not on a contig of {contig_length:,} bases.")
    half = context // 2
    start = max(0, (position0 - context // 4) // half) * half
    end = start + context
    if circular:
        return start, min(end, start + contig_length)
    return start, min(end, contig_length)

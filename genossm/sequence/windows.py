"""Which window of the reference a position is scored in: fixed by the position alone, never by the file."""

from __future__ import annotations

from genossm.core.errors import IntervalError


def scoring_window(
    position0: int, context: int | None, contig_length: int, *, circular: bool = False
) -> tuple[int, int]:
    """The window `(start, end)`, 0-based half-open, that a variant at `position0` is scored in.

    With context C it is `[kC/2, kC/2 + C)`, `k = max(0, floor((position0 - C/4) / (C/2)))`: neighbours half a context
    apart, every position at least C/4 from both ends of its window except at the contig's own ends, where the window
    is clipped. A circular contig has no ends: C is at most the contig (see `context_on`), `k` may be -1, and a window
    with a negative start, or an end past `contig_length`, goes on there around the circle. Without a context the
    window is the contig, and on a circular one as long as that.

    Raises: IntervalError if the position is not on the contig or the context is no positive multiple of 4.
    """
    if context is not None and (context <= 0 or context % 4):
        raise IntervalError(
            f"A scoring context of {context} bases cannot be halved twice; wanted a positive multiple of 4."
        )
    if not 0 <= position0 < contig_length:
        raise IntervalError(f"Position {position0} (0-based) is not on a contig of {contig_length:,} bases.")
    if context is None and not circular:
        return 0, contig_length
    context = context_on(context, contig_length, circular=circular)
    half = context // 2
    start = (position0 - context // 4) // half * half
    if circular:
        return start, start + min(context, contig_length)
    start = max(0, start)
    return start, min(start + context, contig_length)


def context_on(context: int | None, contig_length: int, *, circular: bool) -> int:
    """The context that a contig is read with: on a circular one no more than goes around once, in whole fours.

    None is the whole contig.
    """
    if context is None:
        context = contig_length
    return min(context, max(4, contig_length // 4 * 4)) if circular else context

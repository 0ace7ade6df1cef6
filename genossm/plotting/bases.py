"""Bits per base: one number a method, and along the sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genossm.plotting.figures import BASELINE, INK, MODEL, QUIET, new_figure, require_named, require_one_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two bits say nothing at all about the next base: the line that every method has to stay below.
UNIFORM_BITS = 2.0
UNIT = "bits per base"


def bits_comparison(
    names: Sequence[str],
    bits: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    model: str,
    unit: str = UNIT,
) -> Figure:
    """Bits per base of several methods with their intervals, best on top; `model` names the highlighted one.

    unit: what the bits are of, for the axis.
    Raises: UsageError for unequal lengths, or a model that is not among the names.
    """
    require_one_each("a method", names=len(names), bits=len(bits), intervals=len(intervals))
    require_named(model, names)
    order = sorted(range(len(names)), key=lambda i: -bits[i])
    figure, axes = new_figure(7.0, 0.8 + 0.36 * len(names))
    for row, i in enumerate(order):
        low, high = intervals[i]
        colour = MODEL if names[i] == model else QUIET[0]
        axes.plot([low, high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([bits[i]], [row], marker="o", color=colour, markersize=7)
        axes.annotate(
            f"{bits[i]:.4f}",
            (bits[i], row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    axes.set_ylim(-0.6, len(order) - 0.2)
    axes.axvline(UNIFORM_BITS, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"{unit} (less is better; dotted: uniform)")
    return figure


def bits_along_region(
    starts: Sequence[int], curves: Mapping[str, Sequence[float]], *, contig: str, model: str, unit: str = UNIT
) -> Figure:
    """Bits per base in consecutive blocks; `starts` are 0-based block starts on `contig`, `unit` the axis' label.

    Raises: UsageError for curves of another length than `starts`, or a model that is not among them.
    """
    for name, values in curves.items():
        require_one_each("a block", starts=len(starts), **{f"values of {name}": len(values)})
    require_named(model, curves)
    figure, axes = new_figure(7.0, 3.0)
    megabases = [start / 1e6 for start in starts]
    for name, values in curves.items():
        is_model = name == model
        axes.plot(
            megabases,
            values,
            color=MODEL if is_model else BASELINE,
            linewidth=1.4 if is_model else 1.0,
            label=name,
            zorder=3 if is_model else 2,
        )
    axes.set_xlabel(f"position on contig {contig} (Mb)")
    axes.set_ylabel(unit)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure

"""Bits per base against the length of sequence that a method reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genossm.plotting.figures import BASELINE, INK, MODEL, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ContextCurve:
    """contexts: bases a window.   bits, low, high: at each, with the ends of its interval."""

    name: str
    contexts: Sequence[int]
    bits: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    is_model: bool


def bits_by_context(panels: Mapping[str, Sequence[ContextCurve]], *, unit: str, axis: str) -> Figure:
    """One panel a kind of place, a curve a method; models in strong colours, baselines dashed.

    unit: of the bits.   axis: what a context is.
    """
    figure, only = new_figure(4.0 * max(1, len(panels)) + 1.0, 4.2)
    only.remove()
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    first = axes[0]
    for one, (title, curves) in zip(axes, panels.items()):
        _draw(one, curves)
        one.set_title(title, fontsize=10, color=INK, loc="left")
        one.set_xlabel(axis, color=INK)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    first.set_ylabel(f"{unit} (less is better)", color=INK)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, fontsize=8, ncols=min(3, max(1, len(labels))), loc="outside upper left"
    )
    return figure


def _draw(axes: Axes, curves: Sequence[ContextCurve]) -> None:
    strong, quiet = iter((MODEL, BASELINE, *QUIET[2:])), iter((*QUIET, INK))
    for curve in curves:
        colour = next(strong if curve.is_model else quiet, INK)
        axes.plot(
            curve.contexts,
            curve.bits,
            color=colour,
            label=curve.name,
            zorder=3,
            linewidth=1.8 if curve.is_model else 1.2,
            linestyle="-" if curve.is_model else "--",
            marker="o" if curve.is_model else None,
            markersize=3,
        )
        if curve.is_model:
            axes.fill_between(curve.contexts, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
    if any(len(curve.contexts) for curve in curves):
        axes.set_xscale("log", base=2)
    axes.tick_params(colors=INK, labelsize=8)

"""Figures on labelled variants with their intervals, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genossm.plotting.figures import BASELINE, INK, MODEL, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4


@dataclass(frozen=True)
class Point:
    """A value between the ends of its interval.   owner: points of one owner share a colour."""

    value: float
    low: float
    high: float
    owner: str


@dataclass(frozen=True)
class Panel:
    """unit: of its axis.   chance: where nothing is told.   points: by the row that they stand in."""

    title: str
    unit: str
    chance: float
    points: Mapping[str, Point]


def forest(panels: Sequence[Panel], rows: Sequence[str]) -> Figure:
    """A panel a set, all with the same rows, the first on top; a line at chance."""
    across = min(_COLUMNS, max(1, len(panels)))
    down = -(-len(panels) // across)
    figure, only = new_figure(3.0 * across + 1.6, down * (0.17 * len(rows) + 0.75))
    only.remove()
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    owners = list(dict.fromkeys(point.owner for panel in panels for point in panel.points.values()))
    colours = dict(zip(owners, (MODEL, BASELINE, *QUIET[2:], *QUIET[:2])))
    for place, one in enumerate(axes.flat):
        if place < len(panels):
            _draw(one, panels[place], rows, colours)
        else:
            one.set_visible(False)
    axes.flat[0].set_yticks(range(len(rows)), rows)
    axes.flat[0].invert_yaxis()
    return figure


def _draw(axes: Axes, panel: Panel, rows: Sequence[str], colours: Mapping[str, str]) -> None:
    axes.axvline(panel.chance, color=INK, linewidth=0.8, linestyle=":")
    for place, row in enumerate(rows):
        point = panel.points.get(row)
        if point is not None:
            colour = colours.get(point.owner, INK)
            axes.plot([point.low, point.high], [place, place], color=colour, linewidth=1.4)
            axes.plot([point.value], [place], color=colour, marker="o", markersize=3.5)
    axes.set_title(panel.title, fontsize=8, color=INK, loc="left")
    axes.set_xlabel(panel.unit, fontsize=8, color=INK)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(colors=INK, labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

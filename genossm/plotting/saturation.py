"""A region's substitutions as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genossm.core.errors import UsageError
from genossm.plotting.figures import INK, new_figure
from genossm.plotting.positions import BASES, column_width, label_positions, per_base, width_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

# Told apart with any colour vision; white, in the middle, is 0.
_COLOURS = "RdBu"
_UNKNOWN = "#DDDDDD"
# Below this width of a column, in inches, letters would run into one another.
_LETTER = 0.1


def saturation_map(
    scores: ArrayLike,
    letters: str,
    pos1: Sequence[int] | NDArray[np.integer],
    *,
    contig: str,
    label: str = "score (nats)",
    limit: float | None = None,
) -> Figure:
    """Heat map of the scores of replacing each letter by A, C, G, T; white is 0, grey is no score.

    scores: (length, 4), NaN for none.   letters: the reference, marked in its own row; as dots where columns are too
    narrow for letters.   pos1: 1-based position of each letter.   label: of the colours, with the unit.
    limit: score of the strongest colours, on both sides of 0; None is the largest there is.
    Raises: UsageError for wrong shapes, or a limit that is not above 0.
    """
    values = per_base("scores", scores, pos1)
    if len(letters) != len(values):
        raise UsageError(f"There are {len(letters)} letters and {len(values)} rows of scores; wanted one a row.")
    extreme = _extreme(values) if limit is None else limit
    if not extreme > 0:
        raise UsageError(f"The limit of the colours is {limit}; wanted more than 0.")
    figure, axes = new_figure(width_for(len(values)), 2.5)
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS].with_extremes(bad=_UNKNOWN)
    image = axes.imshow(
        np.ma.masked_invalid(values.T), aspect="auto", cmap=colours, vmin=-extreme, vmax=extreme, interpolation="none"
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.015, aspect=12)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=9)
    axes.set_yticks(range(len(BASES)), list(BASES))
    axes.set_ylabel("replaced by")
    label_positions(axes, pos1, contig)
    _mark_reference(axes, letters)
    return figure


def _extreme(values: NDArray[np.float64]) -> float:
    """The largest score on either side; 1 where there is none but 0."""
    known = np.abs(values[~np.isnan(values)])
    return float(known.max(initial=0.0)) or 1.0


def _mark_reference(axes: Axes, letters: str) -> None:
    column = column_width(axes, len(letters))
    marks = [(place, BASES.index(letter), letter) for place, letter in enumerate(letters.upper()) if letter in BASES]
    if column < _LETTER:
        axes.plot([place for place, _, _ in marks], [row for _, row, _ in marks], ".", color=INK, markersize=2)
        return
    for place, row, letter in marks:
        axes.text(place, row, letter, ha="center", va="center", fontsize=min(9.0, 72 * column * 0.85), color=INK)

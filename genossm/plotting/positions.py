"""The axis along a contig, numbered as genome browsers number it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genossm.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

BASES = "ACGT"
# Inches: around the axes, of a column of letters that reads well, and of a position's number under it.
_AROUND, _COLUMN, _NUMBER = 1.8, 0.14, 0.95


def width_for(length: int) -> float:
    """Inches of a figure for so many columns of letters, what stands around them included."""
    return min(max(5.0, _AROUND + _COLUMN * length), 12.0)


def column_width(axes: Axes, length: int) -> float:
    """Inches of one of `length` columns."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return (figure.get_size_inches()[0] - _AROUND) / length


def per_base(name: str, values: ArrayLike, pos1: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """`values` as an array (length, 4) in float64.

    Raises: UsageError if it has another shape, or infinities; NaN passes.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(BASES) or not len(array):
        raise UsageError(f"{name} has the shape {array.shape}; wanted (length, 4), a column for each of A, C, G, T.")
    if len(pos1) != len(array):
        raise UsageError(f"{name} has {len(array)} rows and there are {len(pos1)} positions; wanted one a row.")
    if np.isinf(array).any():
        raise UsageError(f"{name} holds infinities, which have no place on an axis. Clip them, or make them NaN.")
    return array


def label_positions(axes: Axes, pos1: Sequence[int] | NDArray[np.integer], contig: str) -> None:
    """Number the columns 0, 1, … of `axes` by their 1-based positions, at round numbers; say the strand if minus."""
    positions = [int(position) for position in pos1]
    step = _step(_NUMBER / column_width(axes, len(positions)))
    rows = [row for row, position in enumerate(positions) if position % step == 0]
    axes.set_xticks(rows, [f"{positions[row]:,}" for row in rows])
    axes.set_xlim(-0.5, len(positions) - 0.5)
    descending = len(positions) > 1 and positions[0] > positions[1]
    axes.set_xlabel(f"position on contig {contig} (1-based{'; minus strand, read 5′ to 3′' if descending else ''})")


def _step(columns: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that is at least `columns`."""
    size = 1
    while True:
        for step in (size, 2 * size, 5 * size):
            if step >= columns:
                return step
        size *= 10

"""Sequence logos: letters as tall as the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genossm.core.errors import MissingDependencyError, UsageError
from genossm.plotting.figures import INK, new_figure
from genossm.plotting.positions import BASES, label_positions, per_base, width_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

# Okabe & Ito's colours that come closest to those that sequencing traces and genome browsers use.
COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
# Probabilities that were computed in float32 sum to 1 within this.
_ROUNDING = 1e-3


def information_content(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Heights of a sequence logo in bits: each probability times 2 bits less the row's entropy.

    probabilities: of A, C, G, T, (length, 4). A row of NaN gives a row of NaN.
    Raises: UsageError for another shape, or rows that are no probabilities.
    Source: Schneider & Stephens 1990, without the correction for few sequences.
    """
    array = np.asarray(probabilities, dtype=np.float64)
    array = per_base("probabilities", array, range(len(array)) if array.ndim else ())
    known = array[~np.isnan(array).all(axis=1)]
    if (known < 0).any() or not (np.abs(known.sum(axis=1) - 1) <= _ROUNDING).all():
        raise UsageError("probabilities has rows that are below 0, partly NaN, or do not sum to 1. Normalise them.")
    logarithms = np.log2(array, out=np.zeros_like(array), where=array > 0)
    entropy = -(array * logarithms).sum(axis=1, keepdims=True)
    return array * (2.0 - entropy)


def sequence_logo(
    heights: ArrayLike,
    pos1: Sequence[int] | NDArray[np.integer],
    *,
    contig: str,
    label: str = "information (bits)",
) -> Figure:
    """Letters stacked at each position, the tallest on top; those of negative height hang below 0.

    heights: of A, C, G, T, (length, 4), as `information_content` or a map of scores gives them; NaN draws nothing.
    pos1: 1-based position of each row.   label: what the heights are, with the unit.
    Raises: UsageError for wrong shapes; MissingDependencyError without logomaker.
    """
    values = np.nan_to_num(per_base("heights", heights, pos1), nan=0.0)
    figure, axes = new_figure(width_for(len(values)), 2.2)
    try:
        import logomaker
        import pandas
    except ImportError as error:
        raise MissingDependencyError("Logos need logomaker. Install it with: pip install 'genossm[plot]'") from error
    table = pandas.DataFrame(values, columns=list(BASES))
    logomaker.Logo(
        table, ax=axes, color_scheme=COLOURS, flip_below=False, baseline_width=0, vpad=0.02, show_spines=False
    )
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(True)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel(label)
    label_positions(axes, pos1, contig)
    return figure

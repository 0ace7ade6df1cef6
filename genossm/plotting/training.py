"""How a training run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genossm.plotting.figures import INK, MODEL, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curve(
    tokens: Sequence[float],
    training_bits: Sequence[float],
    validation_tokens: Sequence[float],
    validation_bits: Sequence[float],
    *,
    levels: Mapping[str, float] | None = None,
    unit: str = "bits per base",
) -> Figure:
    """Bits per base over tokens seen, training and validation; `levels` are horizontal lines to compare with.

    unit: what the bits count, for the axis.
    """
    figure, axes = new_figure()
    axes.plot([t / 1e6 for t in tokens], training_bits, color=QUIET[0], linewidth=0.8, label="training")
    axes.plot(
        [t / 1e6 for t in validation_tokens], validation_bits, color=MODEL, marker="o", markersize=4, label="validation"
    )
    for name, level in (levels or {}).items():
        axes.axhline(level, color=INK, linewidth=0.8, linestyle="--")
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=INK
        )
    axes.set_xlabel("million tokens seen")
    axes.set_ylabel(unit)
    axes.legend(frameon=False, fontsize=8)
    return figure

"""Scores of variants against what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genossm.core.errors import UsageError
from genossm.plotting.figures import BASELINE, INK, MODEL, QUIET, new_figure, require_named, require_one_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scores_by_frequency(
    labels: Sequence[str],
    counts: Sequence[int],
    quantiles: Sequence[tuple[float, float, float, float, float]],
    *,
    score_name: str,
) -> Figure:
    """Box for each allele-frequency bin; `quantiles` are the 5, 25, 50, 75 and 95 % points of the score.

    Raises: UsageError for unequal lengths, or a bin of other than five points.
    """
    require_one_each("a bin", labels=len(labels), counts=len(counts), quantiles=len(quantiles))
    for label, points in zip(labels, quantiles):
        if len(points) != 5:
            raise UsageError(f"quantiles has {len(points)} points for {label}; wanted 5, at 5, 25, 50, 75 and 95 %.")
    figure, axes = new_figure(7.0, 3.4)
    for position, (q05, q25, q50, q75, q95) in enumerate(quantiles):
        axes.plot([position, position], [q05, q95], color=MODEL, linewidth=1)
        axes.bar(position, q75 - q25, bottom=q25, width=0.6, color=MODEL, alpha=0.35)
        axes.plot([position - 0.3, position + 0.3], [q50, q50], color=MODEL, linewidth=2)
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(labels)), [f"{label}\nn = {count:,}" for label, count in zip(labels, counts)])
    axes.set_xlabel("allele frequency of ALT")
    axes.set_ylabel(score_name)
    return figure


def roc_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, model: str) -> Figure:
    """Receiver operating characteristic; each curve is (false positive rates, true positive rates).

    Raises: UsageError for rates of unequal lengths, or a model that is not among the curves.
    """
    require_named(model, curves)
    figure, axes = new_figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color=QUIET[0], linewidth=0.8, linestyle=":")
    for name, (false_positive, true_positive) in curves.items():
        rates = {f"{kind} positive rates of {name}": len(each) for kind, each in zip(("false", "true"), curves[name])}
        require_one_each("a threshold", **rates)
        axes.plot(false_positive, true_positive, color=MODEL if name == model else BASELINE, linewidth=1.6, label=name)
    axes.set_aspect("equal")
    axes.set_xlabel("rare alleles called common")
    axes.set_ylabel("common alleles called common")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure

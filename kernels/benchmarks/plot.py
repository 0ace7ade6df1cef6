"""Draws the scan's times over length from `results/h100.jsonl`, and prints how they grow.

    python kernels/benchmarks/plot.py

The picture goes to the operator's folder, where its README shows it. Of each point the row that was added last counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

HERE = Path(__file__).parent
ROWS = HERE / "results" / "h100.jsonl"
PICTURE = HERE.parent / "genossm_kernels" / "selective_scan" / "h100.png"
SIDES = {"ours": ("genossm", "-", "o"), "mamba_ssm": ("mamba-ssm", ":", "x")}
# Light to dark in one hue: widths are ordered. Sides differ by line and marker.
COLOURS = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
LONG, SHORT = 1_048_576, 65_536

Point = tuple[str, int, int]


def main() -> None:
    points = latest()
    whats = ("forward", "forward+backward")
    commit = sorted({row["commit"][:7] for (what, _, _), row in points.items() if what in whats})
    widths = sorted({channels for _, channels, _ in points})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharex=True, layout="constrained")
    for axis, what in zip(axes, whats, strict=True):
        for colour, channels in zip(COLOURS, widths):
            for side, (_, line, marker) in SIDES.items():
                draw(axis, points, what, channels, side, color=colour, linestyle=line, marker=marker)
        axis.set(title=what, xscale="log", yscale="log", xlabel="length (tokens)", ylabel="milliseconds")
        axis.set_xticks([2**k for k in (11, 14, 16, 18, 20)], ["2 k", "16 k", "64 k", "256 k", "1 M"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    handles = [Line2D([], [], color=colour, label=f"{channels} channels") for colour, channels in zip(COLOURS, widths)]
    handles += [Line2D([], [], color="black", linestyle=s, marker=m, label=name) for name, s, m in SIDES.values()]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    figure.suptitle(f"selective_scan, bfloat16, 16 states, one H100 ({', '.join(commit)})", fontsize=10)
    figure.savefig(PICTURE, dpi=110)
    print(growth(points))


def latest() -> dict[Point, dict[str, Any]]:
    points: dict[Point, dict[str, Any]] = {}
    for line in ROWS.read_text().splitlines():
        row = json.loads(line)
        if row["operator"] == "selective_scan" and row["steps"] == "trained":
            points[row["what"], row["channels"], row["length"]] = row
    return points


def draw(axis: Any, points: dict[Point, dict[str, Any]], what: str, channels: int, side: str, **style: Any) -> None:
    found = sorted(
        (length, row[side]["median_ms"])
        for (kind, width, length), row in points.items()
        if (kind, width) == (what, channels) and "median_ms" in row.get(side, {})
    )
    axis.plot([length for length, _ in found], [ms for _, ms in found], markersize=4, linewidth=1.3, **style)


def growth(points: dict[Point, dict[str, Any]]) -> str:
    """Time at 1 M over sixteen times that at 64 k: 1 is linear."""
    lines = [f"{'growth, 1 M / (16 x 64 k)':26} {'ours':>6} {'mamba-ssm':>10}"]
    for what, channels, length in sorted(points):
        if length != LONG or (what, channels, SHORT) not in points:
            continue
        pair = (points[what, channels, LONG], points[what, channels, SHORT])
        ratios = [pair[0][side]["median_ms"] / (16 * pair[1][side]["median_ms"]) for side in SIDES if side in pair[0]]
        lines.append(f"{what:20} {channels:5} " + " ".join(f"{ratio:8.3f}" for ratio in ratios))
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""`evaluate context-table`: a JSON file, a Markdown page and a picture from the files of several methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import UsageError
from genossm.core.provenance import Provenance
from genossm.evaluation.bootstrap import interval_text
from genossm.evaluation.context_file import ContextBits, read_context
from genossm.evaluation.context_table import (
    ALL,
    FORMAT,
    FORMAT_VERSION,
    Comparison,
    Difference,
    Figure,
    Reading,
    compare,
)
from genossm.evaluation.places import INSIDE, OUTSIDE
from genossm.plotting.context import ContextCurve, bits_by_context
from genossm.plotting.figures import to_png

SHOWN = (ALL, OUTSIDE, INSIDE)
_WORDS = {
    "causal": (
        "Bits per base",
        "bits per base",
        "bases before the place",
        "Each base is predicted from the bases before it alone. A row's windows start half their length apart and each "
        "judges its second half: every base is judged once a row, with as many bases before it as the row says.",
    ),
    "masked": (
        "Masked bits per base",
        "masked bits per base",
        "bases on the nearer side",
        "A share of the bases is hidden and each of these is predicted from what is left on both sides: another task, "
        "whose figures are not to be set beside those of causal models. A row's windows start half their length apart "
        "and each judges its middle half: every hidden base is judged once a row, with as many bases on its nearer "
        "side as the row says.",
    ),
}

TITLES = {objective: words[0] for objective, words in _WORDS.items()}


def write_context_table(
    paths: Sequence[Path],
    output: Path,
    *,
    picture: bool = True,
    replicates: int = 2000,
    seed: int = 0,
    force: bool = False,
) -> list[Comparison]:
    """Compare the files of `genossm evaluate context` and write OUTPUT.json, OUTPUT.md and, an objective, OUTPUT-*.png.

    Raises: UsageError without files; ConfigError if methods of one objective were judged on different bases.
    """
    if not paths:
        raise UsageError("Nothing to compare. Give the files that `genossm evaluate context` wrote.")
    comparisons = compare([read_context(path) for path in paths], replicates=replicates, seed=seed)
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        "provenance": Provenance(seed=seed).as_dict(),
    }
    named = {output.with_name(output.name + ".json"): json.dumps(content, indent=1) + "\n"}
    named[output.with_name(output.name + ".md")] = markdown(comparisons)
    pictures = {output.with_name(f"{output.name}-{c.objective}.png"): c for c in comparisons} if picture else {}
    for path in (*named, *pictures):
        refuse_overwrite(path, force=force)
    for path, text in named.items():
        with atomic_file(path, force=force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for path, comparison in pictures.items():
        with atomic_file(path, force=force) as temporary:
            temporary.write_bytes(to_png(draw(comparison)))
    return comparisons


def draw(comparison: Comparison) -> Any:
    """A panel each for all places, outside and inside repeats."""
    panels: dict[str, list[ContextCurve]] = {}
    for subset in (name for name in SHOWN if name in comparison.subsets):
        curves = panels[subset] = []
        for file in comparison.files:
            figures = {c: comparison.figure(Reading(file.name, c), subset) for c in sorted(file.contexts)}
            found = {c: figure for c, figure in figures.items() if figure is not None}
            ends = [figure.interval for figure in found.values()]
            bits = [figure.bits for figure in found.values()]
            seen = [_at_least(comparison.objective, context) for context in found]
            low, high = [end[0] for end in ends], [end[1] for end in ends]
            curves.append(ContextCurve(file.name, seen, bits, low, high, file in comparison.models))
    _, unit, axis, _ = _WORDS[comparison.objective]
    return bits_by_context(panels, unit=unit, axis=f"{axis}, at least")


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The page: for each objective bits by context, inside and outside repeats, and differences with intervals."""
    parts = []
    for comparison in comparisons:
        title, unit, seen, explained = _WORDS[comparison.objective]
        file = comparison.files[0]
        parts += [
            f"## {title}",
            f"{int(file.counts.sum()):,} bases of {', '.join(comparison.regions)}{_hidden(file)}. {explained} "
            f"Intervals are 95 %, from resampled blocks of {file.block:,} bases, the same draws for every method.",
        ]
        for subset in (name for name in SHOWN if name in comparison.subsets):
            parts += [f"### {title}, {_places(subset)}", _table_by_context(comparison, subset, seen)]
        differences = comparison.differences()
        if differences:
            parts += [f"### Differences, {unit}", "Below 0: the left one is better."]
            kinds = [[name for name in comparison.subsets if (name in SHOWN) == shown] for shown in (True, False)]
            parts += [_differences(comparison, differences, subsets) for subsets in kinds if subsets]
    return "\n\n".join(parts) + "\n"


def _table_by_context(comparison: Comparison, subset: str, seen: str) -> str:
    header = [seen, *(file.name for file in comparison.files)]
    rows = []
    for context in comparison.contexts:
        cells = []
        for file in comparison.files:
            known = context in file.contexts
            figure = comparison.figure(Reading(file.name, context), subset) if known else None
            cells.append("" if figure is None else f"{figure.bits:.4f}")
        rows.append([_range(comparison.objective, context), *cells])
    return _markdown_table(header, rows)


def _differences(comparison: Comparison, differences: Sequence[Difference], subsets: Sequence[str]) -> str:
    file = comparison.files[0]
    sizes = {name: comparison.figure(Reading(file.name, file.contexts[0]), name) for name in subsets}
    header = ["left", "right", *(f"{name} ({figure.bases:,} bases)" for name, figure in sizes.items() if figure)]
    rows = [
        [str(d.left), str(d.right), *(_with_interval(d.figures[name]) for name, figure in sizes.items() if figure)]
        for d in differences
    ]
    return _markdown_table(header, rows)


def _hidden(file: ContextBits) -> str:
    share = file.details.get("mask_fraction")
    return "" if share is None else f", which are the {100 * share:g} % that were hidden"


def _with_interval(figure: Figure) -> str:
    return f"{figure.bits:+.4f} ({interval_text(figure.interval, '+.4f')})"


def _places(subset: str) -> str:
    return "all places" if subset == ALL else subset


def _at_least(objective: str, context: int) -> int:
    return context // 2 if objective == "causal" else context // 4


def _range(objective: str, context: int) -> str:
    first = _at_least(objective, context)
    last = context - 1 if objective == "causal" else context // 2 - 1
    return f"{first:,}" if last <= first else f"{first:,} to {last:,}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

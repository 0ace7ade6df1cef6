"""`evaluate labelled-table`: a JSON file, a Markdown page and a picture from labelled reports and heads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import UsageError
from genossm.core.provenance import Provenance
from genossm.evaluation.bootstrap import interval_text
from genossm.evaluation.labelled_table import COLUMNS, HEAD, OTHER, Entry, LabelledTable, SetTable, labelled_table
from genossm.plotting.figures import to_png
from genossm.plotting.labelled import Panel, Point, forest

FORMAT, FORMAT_VERSION = "genossm-labelled-table", 1
RATIO, L2, COSINE = COLUMNS["GENOSSM_LLR"], COLUMNS["GENOSSM_EMB_L2"], COLUMNS["GENOSSM_EMB_COS"]

_Column = tuple[str, str]


def write_labelled_table(
    reports: Sequence[Path], output: Path, *, heads: Sequence[Path] = (), picture: bool = True, force: bool = False
) -> LabelledTable:
    """Put reports and heads together and write OUTPUT.json, OUTPUT.md and OUTPUT.png.

    Raises: UsageError without reports; what `labelled_table` raises; OutputExistsError.
    """
    if not reports:
        raise UsageError("Nothing to put together. Give the files that `genossm evaluate labelled` wrote.")
    table = labelled_table(reports, heads)
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **table.as_dict()}
    content["provenance"] = Provenance().as_dict()
    named = {
        output.with_name(output.name + ".json"): (json.dumps(content, indent=1) + "\n").encode(),
        output.with_name(output.name + ".md"): markdown(table).encode(),
    }
    if picture:
        named[output.with_name(output.name + ".png")] = to_png(draw(table))
    for path in named:
        refuse_overwrite(path, force=force)
    for path, data in named.items():
        with atomic_file(path, force=force) as temporary:
            temporary.write_bytes(data)
    return table


def markdown(table: LabelledTable) -> str:
    """Tables with a row a set: ratios, distances, heads, and the columns that came with the sets."""
    ratios = [(owner, RATIO) for owner in table.owners]
    distances = [(owner, number) for owner in table.owners for number in (L2, COSINE)]
    heads = [(owner, HEAD) for owner in table.owners]
    came = dict.fromkeys((OTHER, one.number) for each in table.sets for one in each.entries if one.owner == OTHER)
    parts = [
        f"Windows of {_thousands(table.context)} bases; 95 % intervals from {table.replicates:,} resamplings of whole "
        "blocks. Areas (AUROC) above 0.5, and rank correlations (Spearman) above 0, are the expected way round: what "
        "has an effect has a low ratio and a large distance. Correlations marked ± may go either way. Bold: the "
        "interval leaves out chance."
    ]
    for title, columns in (
        ("Log-likelihood ratios", ratios),
        ("Embedding distances", distances),
        ("Heads in nested cross-validation", heads),
        ("Columns that came with a set", came),
    ):
        shown = [key for key in columns if any(each.find(*key) for each in table.sets)]
        if shown:
            parts += [f"### {title}", _table(table, shown)]
    return "\n\n".join(parts) + "\n"


def draw(table: LabelledTable) -> Any:
    """A panel a set, a row a number."""
    columns = _all_columns(table)
    panels = []
    for each in table.sets:
        points = {
            _name(key): Point(one.value, *one.interval, key[0])
            for key in columns
            if (one := each.find(*key)) is not None
        }
        panels.append(Panel(each.name, _unit(each), each.chance, points))
    return forest(panels, [_name(key) for key in columns])


def _all_columns(table: LabelledTable) -> list[_Column]:
    """What is shown of any set, model by model."""
    found = dict.fromkeys((one.owner, one.number) for each in table.sets for one in each.entries)
    order = (RATIO, L2, COSINE, HEAD)
    own = [(owner, number) for owner in table.owners for number in order if (owner, number) in found]
    return own + [key for key in found if key[0] == OTHER]


def _table(table: LabelledTable, columns: Sequence[_Column]) -> str:
    lines = [
        f"| set | metric | alleles | {' | '.join(map(_name, columns))} |",
        f"|---|---|---:|{'---:|' * len(columns)}",
    ]
    for each in table.sets:
        found = [each.find(*key) for key in columns]
        first = next((one for one in found if one is not None), None)
        if first is not None:
            cells = " | ".join(_cell(each, one) for one in found)
            lines.append(f"| {each.name} | {_unit(each)} | {_counts(first)} | {cells} |")
    return "\n".join(lines)


def _thousands(context: int | str) -> str:
    return f"{context:,}" if isinstance(context, int) else context


def _name(column: _Column) -> str:
    owner, number = column
    return number if owner == OTHER else f"{owner}, {number}"


def _unit(each: SetTable) -> str:
    return "Spearman ±" if each.metric == "Spearman" and not each.effect_is else each.metric


def _counts(one: Entry) -> str:
    positives = f"{one.positives:,} of " if one.positives is not None else ""
    return f"{positives}{one.alleles:,}"


def _cell(each: SetTable, one: Entry | None) -> str:
    if one is None:
        return ""
    if math.isnan(one.value):
        return "none"
    text = f"{one.value:.3f} ({interval_text(one.interval, '.3f')})"
    return f"**{text}**" if each.distinct(one) else text

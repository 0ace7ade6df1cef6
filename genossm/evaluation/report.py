"""The page that `genossm report` writes: what the result files say, with pictures, and nothing computed anew."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import InputFileError, UsageError
from genossm.core.provenance import Provenance
from genossm.core.strict import load_yaml
from genossm.evaluation.bootstrap import interval_text
from genossm.evaluation.report_page import Picture, Section, render_page
from genossm.plotting import bits_along_region, bits_comparison, learning_curve, to_svg

LEAD = "Every number below stands in the files that this page was made from; nothing on it comes from elsewhere."


def write_report(
    output: str | os.PathLike[str],
    *,
    runs: Sequence[Path] = (),
    bases: Sequence[Path] = (),
    variants: Sequence[Path] = (),
    title: str = "genossm report",
    force: bool = False,
) -> Path:
    """Write one self-contained HTML page and return its path.

    runs: directories of training runs.   bases, variants: JSON files of `genossm evaluate`. The n-th of each belong
    together, so that a page on several models has them one after the other.
    Raises: UsageError if there is nothing to report; InputFileError for a file that is missing or of another format.
    """
    output = Path(output)
    refuse_overwrite(output, force=force)
    if not (runs or bases or variants):
        raise UsageError("Nothing to report. Give at least one of --run, --bases and --variants.")
    sections: list[Section] = []
    made_from: dict[str, dict[str, Any]] = {}
    for run, bases_file, variants_file in zip_longest(runs, bases, variants):
        if run:
            sections.append(training_section(run))
        if bases_file:
            content = made_from[str(bases_file)] = read_result(bases_file, "genossm-bases")
            sections.append(bases_section(content))
        if variants_file:
            from genossm.evaluation.variant_section import variants_section

            content = made_from[str(variants_file)] = read_result(variants_file, "genossm-variants")
            sections.append(variants_section(content))
    page = render_page(title, LEAD, sections, facts(made_from))
    with atomic_file(output, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return output


def read_result(path: Path, expected: str) -> dict[str, Any]:
    """The JSON mapping in `path`, if its "format" is `expected`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputFileError(
            f"Cannot read {path}: {error}. Wanted the JSON file of a `genossm evaluate` run."
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != expected:
        raise InputFileError(
            f"{path} holds {found or 'no genossm result'}; wanted {expected}. Check which file goes where."
        )
    return content


def training_section(run: Path) -> Section:
    """How the run in this directory went. Raises: InputFileError if it has no metrics.csv."""
    path = run / "metrics.csv"
    if not path.is_file():
        raise InputFileError(f"{run} has no metrics.csv; wanted the output directory of `genossm train`.")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    training = [row for row in rows if row["train_bits_per_base"]]
    validation = [row for row in rows if row["validation_bits_per_base"]]
    if not training or not validation:
        raise InputFileError(
            f"{path} has no training or no validation row yet. Let the run reach its first validation."
        )
    tokens, bits = _column(validation, "tokens"), _column(validation, "validation_bits_per_base")
    best = min(range(len(bits)), key=bits.__getitem__)
    last, unit = rows[-1], _unit_of_run(run)
    figure = learning_curve(
        _column(training, "tokens"), _column(training, "train_bits_per_base"), tokens, bits, unit=unit
    )
    return Section(
        "Training of a masked model" if unit.startswith("masked") else "Training",
        [
            f"{int(float(last['step'])):,} steps over {float(last['tokens']) / 1e6:.2f} million bases in "
            f"{float(last['seconds']):.0f} seconds."
        ],
        verdict=f"Fewest {unit} on the validation region: {bits[best]:.4f}, "
        f"after {tokens[best] / 1e6:.2f} million bases.",
        pictures=[
            Picture(
                to_svg(figure, title="Learning curve"), f"{unit.capitalize()} while training; 2 bits is a blind guess."
            )
        ],
    )


def _ends(interval: Sequence[float] | None) -> tuple[float, float]:
    """Of an interval as JSON holds it."""
    low, high = interval or (math.nan, math.nan)
    return low, high


def bases_section(content: Mapping[str, Any]) -> Section:
    """The model beside the Markov models, and both along the judged region."""
    words = _words(content)
    methods = sorted(content["methods"], key=lambda method: method["bits_per_base"])
    model = content["methods"][0]["name"]
    compared = bits_comparison(
        [method["name"] for method in methods],
        [method["bits_per_base"] for method in methods],
        [_ends(method["interval"]) for method in methods],
        model=model,
        unit=words.unit,
    )
    pictures = [
        Picture(to_svg(compared, title=f"{words.title} of each method"), "Mean over the judged bases, 95 % intervals.")
    ]
    differences = {entry["method"]: entry for entry in content["differences"]}
    best = content["best_markov"]
    pictures += _along_the_contigs(content["blocks"], model, best, words)
    regions = content["regions"]
    return Section(
        words.title,
        [
            f"Judged on {', '.join(regions['test'])}: {content['scored_bases']:,} bases that were neither trained on "
            f"({', '.join(regions['train'])}) nor tuned on ({', '.join(regions['validation'])}). "
            f"The Markov models were counted and tuned on the same regions. Context: {content['context']} bases.",
            *words.explanation,
        ],
        verdict=content["sentence"],
        header=("method", words.unit, "95 % interval", "model minus it"),
        rows=[_method_row(method, differences.get(method["name"])) for method in methods],
        pictures=pictures,
    )


def facts(made_from: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Provenance of the page and of every file behind it."""
    listed = {"page": _provenance_line(Provenance().as_dict())}
    for name, content in made_from.items():
        provenance = content.get("provenance", {})
        digests = (f"{key} {provenance[key]}" for key in ("model_digest", "reference_digest") if provenance.get(key))
        listed[name] = " · ".join((_provenance_line(provenance), *(text.replace("_", " ", 1) for text in digests)))
    return listed


def _provenance_line(provenance: Mapping[str, Any]) -> str:
    parts = (provenance.get("command"), f"genossm {provenance.get('genossm_version')}", provenance.get("created"))
    return " · ".join(str(part) for part in parts if part)


def _method_row(method: Mapping[str, Any], difference: Mapping[str, Any] | None) -> tuple[str, ...]:
    beside = ""
    if difference:
        beside = f"{difference['bits_per_base']:+.4f} ({interval_text(difference['interval'], '+.4f')})"
    return method["name"], f"{method['bits_per_base']:.4f}", interval_text(method["interval"], ".4f"), beside


def _unit_of_run(run: Path) -> str:
    """Runs of masked models have a mask in the configuration that lies beside their metrics."""
    path = run / "config.yaml"
    masked = path.is_file() and load_yaml(path).get("masking") is not None
    return "masked bits per base" if masked else "bits per base"


@dataclass(frozen=True)
class _Words:
    """What the figures of a result count, as a headline and in a sentence."""

    title: str
    unit: str
    explanation: tuple[str, ...] = ()


def _words(content: Mapping[str, Any]) -> _Words:
    if content.get("objective", "causal") == "causal":
        return _Words("Bits per base", "bits per base")
    return _Words(
        "Masked bits per base",
        "masked bits per base",
        (
            f"{content['mask_fraction'] * 100:g} % of the bases were hidden, and each of them is predicted from what "
            "is left on both sides: another task than foretelling the next base, so that these figures are not to be "
            "set beside those of causal models. Two-sided Markov models read the same masked sequence; those marked "
            "as unmasked see every other base, more than the model does, and are shown for scale.",
        ),
    )


def _along_the_contigs(blocks: Mapping[str, Any], model: str, best: str | None, words: _Words) -> list[Picture]:
    pictures = []
    for contig in dict.fromkeys(blocks["contig"]):
        chosen = [i for i, name in enumerate(blocks["contig"]) if name == contig]
        curves = {
            name: [_or_gap(blocks["bits_per_base"][name][i]) for i in chosen]
            for name in (model, best)
            if name is not None
        }
        starts = [blocks["start0"][i] for i in chosen]
        figure = bits_along_region(starts, curves, contig=contig, model=model, unit=words.unit)
        pictures.append(
            Picture(
                to_svg(figure, title=f"{words.title} along contig {contig}"),
                "Along the judged region. Dips are sequence that is easy to foretell, mostly repeats.",
            )
        )
    return pictures


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value


def _column(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]

"""One table and one JSON file over files that `genossm score` wrote: counts by status, quantiles of every score."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genossm.core.atomic import atomic_file
from genossm.core.errors import GenossmError, InputFileError
from genossm.variants import STATUS_MEANINGS

STATUS = "GENOSSM_STATUS"
SCORE = re.compile(r"##INFO=<ID=(GENOSSM_\w+),Number=A,Type=Float,")
FACT = re.compile(r"##genossm_(version|model|reference|method|context|horizon|strands)=(.*)")


@dataclass
class Tally:
    """statuses: ALT alleles by status; a record without ALT counts once.   scores: by INFO key, in the file's order."""

    records: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    scores: dict[str, array[float]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.records += other.records
        self.statuses += other.statuses
        for key, values in other.scores.items():
            self.scores.setdefault(key, array("d")).extend(values)

    def as_dict(self, quantiles: Sequence[float]) -> dict[str, Any]:
        scores = {key: describe(values, quantiles) for key, values in self.scores.items()}
        return {
            "records": self.records,
            "alleles": self.statuses.total(),
            "statuses": {status.value: self.statuses[status.value] for status in STATUS_MEANINGS},
            "scores": scores,
        }


def describe(values: array[float], quantiles: Sequence[float]) -> dict[str, Any]:
    """Number, mean and quantiles (linear between values), to the six digits that VCF keeps; null without values."""
    names = [f"{quantile:g}" for quantile in quantiles]
    if not values:
        return {"count": 0, "mean": None, "quantiles": dict.fromkeys(names)}
    numbers = np.frombuffer(values, dtype=np.float64)
    mean, *found = (float(f"{value:.6g}") for value in (numbers.mean(), *np.quantile(numbers, quantiles)))
    return {"count": len(values), "mean": mean, "quantiles": dict(zip(names, found))}


def read(path: Path) -> tuple[Tally, dict[str, str]]:
    """What a scored file holds, and what its header says about how it was scored."""
    tally, facts = Tally(), {}
    with gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if not line.startswith("#"):
                add_record(tally, line)
            elif found := SCORE.match(line):
                tally.scores[found[1]] = array("d")
            elif found := FACT.match(line):
                facts[found[1]] = found[2]
    if not facts:
        raise InputFileError(f"{path} holds no scores of genossm. Score it first: genossm score.")
    return tally, facts


def add_record(tally: Tally, line: str) -> None:
    entries = line.rstrip("\n").split("\t", 8)[7].split(";")
    info = dict(entry.split("=", 1) for entry in entries if entry.startswith("GENOSSM_"))
    tally.records += 1
    tally.statuses.update(info[STATUS].split(","))
    for key in tally.scores:
        tally.scores[key].extend(float(text) for text in info.get(key, ".").split(",") if text != ".")


def same_facts(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """The facts that all files share. Raises: InputFileError if they were not scored alike."""
    (first, facts), *others = found.items()
    for name, other in others:
        for key in facts:
            if other.get(key) != facts[key]:
                raise InputFileError(
                    f"{first} and {name} were not scored alike: {key} is {facts[key]} and {other.get(key)}. "
                    "Score all inputs anew with one configuration."
                )
    return facts


def table(rows: dict[str, dict[str, Any]]) -> Iterable[str]:
    """Tab-separated lines: a head, then a row an input; a cell without a value is NA."""
    keys = list(next(iter(rows.values()))["scores"])
    statuses = [status.value for status in STATUS_MEANINGS]
    quantiles = list(next(iter(rows.values()))["scores"][keys[0]]["quantiles"]) if keys else []
    columns = [f"{key}_{name}" for key in keys for name in ("mean", *(f"q{q}" for q in quantiles))]
    yield "\t".join(("input", "records", "alleles", *statuses, *columns))
    for name, row in rows.items():
        scores = [x for key in keys for x in (row["scores"][key]["mean"], *row["scores"][key]["quantiles"].values())]
        cells = [row["records"], row["alleles"], *row["statuses"].values()]
        yield "\t".join((name, *map(str, cells), *("NA" if x is None else f"{x:g}" for x in scores)))


def write(path: Path, text: str) -> None:
    with atomic_file(path, force=True) as temporary:
        temporary.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vcfs", nargs="+", type=Path, help="bgzip VCF files with scores")
    parser.add_argument("--quantiles", nargs="+", type=float, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    every, inputs, facts = Tally(), {}, {}
    for path in arguments.vcfs:
        name = path.name.removesuffix(".vcf.gz")
        tally, facts[name] = read(path)
        inputs[name] = tally.as_dict(arguments.quantiles)
        every.add(tally)
    result = {
        "format": "genossm-score-summary",
        "scoring": same_facts(facts),
        "inputs": inputs,
        "all": every.as_dict(arguments.quantiles),
    }
    write(arguments.json, json.dumps(result, indent=2))
    write(arguments.table, "\n".join(table({**inputs, "all": result["all"]})))


if __name__ == "__main__":
    try:
        main()
    except GenossmError as error:
        sys.exit(f"summarise: {error}")

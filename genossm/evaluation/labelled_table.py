"""What several runs of `genossm evaluate labelled` and `genossm head train` found, set by set, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genossm.core.errors import ConfigError, InputFileError
from genossm.evaluation.bootstrap import interval_or_null
from genossm.evaluation.labelled_report import FORMAT, FORMAT_VERSION
from genossm.variants.heads.head import load_head
from genossm.variants.methods import EMBEDDING, LLR

RATIO = LLR.tags[0].name
COLUMNS = {EMBEDDING.tags[0].name: "L2", EMBEDDING.tags[1].name: "cosine", RATIO: "ratio"}
"""Numbers that the page shows, and what it calls them; distances over whole windows stand in the JSON file alone."""
HEAD = "head"
OTHER = "-"
"""Who owns a column that came with a set."""


@dataclass(frozen=True)
class Entry:
    """One number on one set.   owner: a model, a count table, or "-" for a column that came with the set.
    number: "ratio", "L2", "cosine", "head", or that column's name.
    value, interval: an area, above 0.5 the expected way round; or a rank correlation, above 0 the expected way round
    where the set says which that is, else as it is.   positives: of `alleles`, of the class with an effect.
    """

    owner: str
    number: str
    value: float
    interval: tuple[float, float]
    alleles: int
    positives: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        value = None if math.isnan(self.value) else self.value
        return {**vars(self), "value": value, "interval": interval_or_null(self.interval)}


@dataclass(frozen=True)
class SetTable:
    """name, metric, effect_is: of the set.   entries: in the order of the files, heads last."""

    name: str
    metric: str
    effect_is: str
    entries: tuple[Entry, ...]

    @property
    def chance(self) -> float:
        return 0.5 if self.metric == "AUROC" else 0.0

    def distinct(self, entry: Entry) -> bool:
        """Whether its interval leaves out chance; without an interval it does not."""
        low, high = entry.interval
        return low > self.chance or high < self.chance

    def find(self, owner: str, number: str) -> Entry | None:
        return next((one for one in self.entries if (one.owner, one.number) == (owner, number)), None)


@dataclass(frozen=True)
class LabelledTable:
    """models: name to digest, count tables among them.   context: bases a window.   replicates: of the bootstrap."""

    sets: tuple[SetTable, ...]
    models: Mapping[str, str]
    context: int | str
    replicates: int

    @property
    def owners(self) -> list[str]:
        """Models and count tables, in the order of the files."""
        return list(dict.fromkeys(one.owner for each in self.sets for one in each.entries if one.owner != OTHER))

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds, without provenance."""
        return {
            "models": dict(self.models),
            "context": self.context,
            "replicates": self.replicates,
            "sets": [{**vars(each), "entries": [one.as_dict() for one in each.entries]} for each in self.sets],
        }


def labelled_table(reports: Sequence[Path], heads: Sequence[Path] = ()) -> LabelledTable:
    """Put files of `genossm evaluate labelled`, and folders of heads, together.

    A head stands with the set whose table and label it learnt from.
    Raises: InputFileError for a file that is none of these; ConfigError for reports under different settings or sets,
    for one figure that is there twice, or for a head of another model or set.
    """
    contents = [_read(path) for path in reports]
    _require_alike(reports, contents)
    models: dict[str, str] = {}
    described: dict[str, Mapping[str, Any]] = {}
    entries: dict[str, list[Entry]] = {}
    for content in contents:
        models |= content["models"]
        for one in content["sets"]:
            if described.setdefault(one["name"], one) != one:
                raise ConfigError(f"Two reports have different sets called {one['name']!r}. Judge both on the same.")
        for figure in content["figures"]:
            one = described[figure["set_name"]]
            found = _entry(figure, one)
            known = entries.setdefault(one["name"], [])
            twice = next((each for each in known if (each.owner, each.number) == (found.owner, found.number)), None)
            if twice is not None and found.owner != OTHER:
                raise ConfigError(f"{found.owner} is judged on {one['name']!r} in two reports. Give each figure once.")
            if twice is None:
                known.append(found)
    for folder in heads:
        name, found = _head(folder, models, list(described.values()), contents[0]["options"]["context"])
        entries[name].append(found)
    sets = [
        SetTable(name, _metric(described[name]), described[name]["effect_is"], tuple(entries[name]))
        for name in described
    ]
    options, bootstrap = contents[0]["options"], contents[0]["bootstrap"]
    return LabelledTable(tuple(sets), models, options["context"], bootstrap["replicates"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if content["format"] == FORMAT and content["format_version"] == FORMAT_VERSION:
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(
            f"{path} cannot be read: {error}. Wanted what `genossm evaluate labelled` wrote."
        ) from None
    raise InputFileError(f"{path} is no report that this version reads. Run `genossm evaluate labelled` again.")


def _require_alike(paths: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> None:
    for path, content in zip(paths, contents):
        for key, first in (("options", contents[0]["options"]), ("bootstrap", contents[0]["bootstrap"])):
            if content[key] != first:
                raise ConfigError(
                    f"{path} has {key} {content[key]}, {paths[0]} has {first}. Judge both under equal ones."
                )


def _metric(one: Mapping[str, Any]) -> str:
    return "AUROC" if one["positive"] or one["at_least"] is not None else "Spearman"


def _entry(figure: Mapping[str, Any], one: Mapping[str, Any]) -> Entry:
    """A correlation is turned so that above 0 is the expected way round: low ratios, large distances are effects."""
    name = str(figure["number"]).removeprefix("-")
    value, low, high = (math.nan if one is None else one for one in (figure["value"], *figure["interval"]))
    if _metric(one) == "Spearman" and one["effect_is"]:
        with_ratio = one["effect_is"] == "low"
        if (name == RATIO) != with_ratio:
            value, low, high = -value, -high, -low
    return Entry(figure["model"], COLUMNS.get(name, name), value, (low, high), figure["alleles"], figure["positives"])


def _head(
    folder: Path, models: Mapping[str, str], sets: Sequence[Mapping[str, Any]], context: int | str
) -> tuple[str, Entry]:
    head = load_head(folder)
    owner = next((name for name, digest in models.items() if digest == head.settings["model"]), None)
    if owner is None or head.settings["context"] != context:
        raise ConfigError(
            f"{folder} is a head of the model {head.settings['model'][:12]} at context {head.settings['context']}, "
            f"which no report is of. Train it over a model that was judged, with --context {context}."
        )
    figures = head.figures
    for one in sets:
        label = head.label.removesuffix(f" of {figures['source']}")
        if (
            one["table"] == figures["source"]
            and label.split(" ")[0] == one["label"]
            and _metric(one) == figures["metric"]
        ):
            low, high = figures["interval"]
            return one["name"], Entry(owner, HEAD, figures["value"], (low, high), figures["alleles"], None)
    raise ConfigError(f"{folder} learnt {head.label}, which is the label of no set that was judged.")

"""What `genossm evaluate labelled` does: every model and table on every set, a table and a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import UsageError
from genossm.core.provenance import Provenance
from genossm.evaluation.bootstrap import interval_text
from genossm.evaluation.labelled import Figure, LabelledConfig, SetResult, judge, load_labelled_config
from genossm.evaluation.labelled_scores import ModelScores, Scores, count_tables
from genossm.variants.opening import load_model

FORMAT, FORMAT_VERSION = "genossm-labelled", 2


@dataclass(frozen=True)
class LabelledReport:
    """results: of each model on each set, in the order of models, then of sets.   models: name to digest; of a table
    that of the reference it was counted on.
    """

    config: LabelledConfig
    models: Mapping[str, str]
    results: tuple[SetResult, ...]

    @property
    def figures(self) -> list[Figure]:
        """Other columns once, though every model was judged beside them."""
        return list({(f.set_name, f.model, f.number): f for result in self.results for f in result.figures}.values())

    def table(self) -> str:
        """Markdown, a row a figure."""
        lines = ["| set | model | number | metric | value | 95 % interval | alleles |", "|---|---|---|---|---|---|---|"]
        order = {one.name: number for number, one in enumerate(self.config.sets)}
        for one in sorted(self.figures, key=lambda figure: order[figure.set_name]):
            counts = f"{one.alleles:,}" if one.positives is None else f"{one.positives:,} of {one.alleles:,}"
            lines.append(
                f"| {one.set_name} | {one.model} | {one.number} | {one.metric} | {one.value:.3f} "
                f"| {interval_text(one.interval, '.3f')} | {counts} |"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds, without provenance."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "models": dict(self.models),
            "options": self.config.options.as_dict(),
            "sets": [{**asdict(one), "table": Path(one.table).name, "reference": Path(one.reference).name}
                     for one in self.config.sets],
            "bootstrap": {"replicates": self.config.replicates, "interval": 0.95, "seed": self.config.seed,
                          "kind": "whole blocks of positions, drawn with replacement"},
            "figures": [_plain(asdict(one)) for one in self.figures],
            "left_out": [dict(result.left_out) for result in self.results],
        }  # fmt: skip


@dataclass(frozen=True)
class CountedOn:
    """What order-12 tables are counted on.   train, validation: regions; they are tuned on the latter, or, where there
    are none, on the last tenth of each of the former.
    """

    reference: str
    train: tuple[str, ...]
    validation: tuple[str, ...] = ()


def run_evaluate_labelled(
    config_path: Path,
    models: Sequence[str],
    output: Path,
    *,
    batch_size: int | None = None,
    device: str = "auto",
    counted: CountedOn | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LabelledReport:
    """Judge models, each given as NAME=DIRECTORY or DIRECTORY, on the sets of a configuration.

    counted: order-12 count tables are judged beside them.
    Raises: UsageError for two models of one name, or nothing to judge; ConfigError; InputFileError; OutputExistsError;
    what scoring and counting raise.
    """
    refuse_overwrite(output, force=force)
    config = load_labelled_config(config_path)
    named = [_named(text) for text in models]
    if len({name for name, _ in named}) < len(named):
        raise UsageError("Two models have the same name. Give them names: -m first=DIRECTORY -m second=DIRECTORY.")
    if not named and counted is None:
        raise UsageError("There is nothing to judge: name a model (-m MODEL), or a genome to count (--counted REF).")
    digests: dict[str, str] = {}
    results: list[SetResult] = []
    for scores in _all_scores(named, counted, config, batch_size, device):
        digests[scores.name] = scores.digest
        results += [judge(scores, one, config, progress=progress) for one in config.sets]
    report = LabelledReport(config, digests, tuple(results))
    provenance = Provenance(seed=config.seed)
    with atomic_file(output, force=force) as temporary:
        content = {**report.as_dict(), "provenance": provenance.as_dict()}
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return report


def _all_scores(
    named: Sequence[tuple[str, str]],
    counted: CountedOn | None,
    config: LabelledConfig,
    batch_size: int | None,
    device: str,
) -> Iterator[Scores]:
    """One after the other, so that one model at a time is held."""
    for name, path in named:
        yield ModelScores(name, load_model(path, device), config.options, batch_size=batch_size)
    if counted is not None:
        yield from count_tables(counted.reference, counted.train, counted.validation, config.options)


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    return (name, path) if equals else (Path(text).name, text)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    value["value"] = None if math.isnan(value["value"]) else round(value["value"], 5)
    value["interval"] = [None if math.isnan(one) else round(one, 5) for one in value["interval"]]
    return value

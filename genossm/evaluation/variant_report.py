"""What `evaluate variants` found: as a table, a sentence, a JSON file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genossm.core.atomic import atomic_file
from genossm.core.provenance import Provenance
from genossm.evaluation.bootstrap import interval_or_null, interval_text
from genossm.evaluation.variant_alleles import ScoredRegion
from genossm.evaluation.variant_frequency import COMMON, QUANTILES, RARE, BinScores, FrequencyResult, Separation
from genossm.sequence import Interval

FORMAT, FORMAT_VERSION = "genossm-variants", 1
MODEL_NAME = "model"
# Fewer blocks than this give intervals that are too narrow by chance as often as not.
FEWEST_BLOCKS = 10
AF_NOTE = (
    "Frequencies are those of ALT, as INFO/AF says; where ALT is the commoner allele, a high frequency speaks of it."
)


@dataclass(frozen=True)
class Protocol:
    """Where and how it was measured.   block: bases, the unit of the bootstrap."""

    region: Interval
    markov_train: Sequence[Interval]
    markov_validation: Sequence[Interval]
    block: int
    replicates: int
    seed: int

    @property
    def blocks(self) -> int:
        """Blocks that the region touches."""
        return (self.region.end - 1) // self.block - self.region.start // self.block + 1


@dataclass(frozen=True, eq=False)
class VariantsReport:
    """results: one a kind of alleles, substitutions of one base first."""

    protocol: Protocol
    scored: ScoredRegion
    results: tuple[FrequencyResult, ...]

    def sentence(self) -> str:
        """The verdict on substitutions of one base, in words."""
        result = self.results[0]
        if result.separations is None:
            counts = f"{result.common:,} common and {result.rare:,} rare {result.kind}s"
            return f"The region has {counts}: nothing to tell apart."
        model = result.separations[MODEL_NAME]
        if self.protocol.blocks < FEWEST_BLOCKS:
            return (
                f"The model tells common from rare {result.kind}s with an AUROC of {model.auroc:.3f}. The region has "
                f"{self.protocol.blocks} blocks of {self.protocol.block:,} bases, too few for intervals to be trusted: "
                "judge a longer one for a verdict."
            )
        if math.isnan(model.interval[0]):
            return (
                f"The model tells common from rare {result.kind}s with an AUROC of {model.auroc:.3f}. They lie in too "
                f"few blocks of {self.protocol.block:,} bases for an interval: judge a longer region for a verdict."
            )
        low, high = model.interval
        said = "above chance" if low > 0.5 else "below chance" if high < 0.5 else "no better than chance"
        text = (
            f"The model tells common from rare {result.kind}s with an AUROC of {model.auroc:.3f} "
            f"({low:.3f} to {high:.3f}), {said}"
        )
        for difference in result.differences:
            low, high = difference.interval
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not to be told apart from"
            text += f"; {verdict} {difference.method} ({difference.auroc:+.3f}, {low:+.3f} to {high:+.3f})"
        return f"{text}."

    def table(self) -> str:
        """AUROC of every method and kind, then scores by frequency."""
        wide = max(18, *(len(name) + 2 for result in self.results for name in result.bins))
        lines = [f"{'alleles':<9}{'method':<{wide}}{'AUROC':>7}  {'95 % interval':<16}  common / rare"]
        for result in self.results:
            for name, separation in (result.separations or {}).items():
                interval = interval_text(separation.interval, ".3f")
                lines.append(
                    f"{result.kind:<9}{name:<{wide}}{separation.auroc:>7.3f}  {interval:<16}  "
                    f"{result.common:,} / {result.rare:,}"
                )
        lines += [
            "",
            f"{'alleles':<9}{'method':<{wide}}{'ALT frequency':<15}{'n':>7}{'mean':>10}{'median':>10}  quartiles",
        ]
        for result in self.results:
            for name, bins in result.bins.items():
                lines += [_bin_line(result.kind, f"{name:<{wide}}", one) for one in bins]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds, without provenance."""
        protocol, scored = self.protocol, self.scored
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "region": str(protocol.region),
            "alleles": len(scored.alleles),
            "unscored": scored.unscored,
            "without_frequency": scored.without_frequency,
            "score": _score(scored),
            "common_at_least": COMMON,
            "rare_at_most": RARE,
            "note": AF_NOTE,
            "bootstrap": {
                "kind": "whole blocks of positions, drawn with replacement",
                "block": protocol.block,
                "replicates": protocol.replicates,
                "interval": 0.95,
            },
            "markov": {
                "train": [str(region) for region in protocol.markov_train],
                "validation": [str(region) for region in protocol.markov_validation]
                or ("last tenth of each training region" if protocol.markov_train else []),
            },
            "quantiles": list(QUANTILES),
            "results": [_result(result) for result in self.results],
            "sentence": self.sentence(),
        }


def write_report(
    report: VariantsReport, path: str | os.PathLike[str], *, provenance: Provenance, force: bool = False
) -> None:
    """Write the JSON file, whole or not at all. Raises: OutputExistsError without `force`."""
    with atomic_file(path, force=force) as temporary:
        temporary.write_text(json.dumps({**report.as_dict(), "provenance": provenance.as_dict()}, indent=1) + "\n")


def _score(scored: ScoredRegion) -> dict[str, Any]:
    """What was compared and how it was made."""
    options = scored.options.as_dict()
    del options["methods"]
    return {"method": scored.method, **options, "unit": "nats, ALT minus REF"}


def _result(result: FrequencyResult) -> dict[str, Any]:
    return {
        "kind": result.kind,
        "alleles": result.alleles,
        "common": result.common,
        "rare": result.rare,
        "methods": [
            {
                "name": name,
                **_separation((result.separations or {}).get(name)),
                "bins": [
                    {"label": one.label, "n": one.count, "mean": _rounded(one.mean), "quantiles": _all(one.quantiles)}
                    for one in bins
                ],
            }
            for name, bins in result.bins.items()
        ],
        "differences": [
            {"method": one.method, "auroc": _rounded(one.auroc), "interval": _all(interval_or_null(one.interval))}
            for one in result.differences
        ],
    }


def _separation(separation: Separation | None) -> dict[str, Any]:
    if separation is None:
        return {"auroc": None, "interval": None, "roc": None}
    curve = separation.curve
    return {
        "auroc": _rounded(separation.auroc),
        "interval": _all(interval_or_null(separation.interval)),
        "roc": {
            "false_positive": [round(float(value), 4) for value in curve.false_positive],
            "true_positive": [round(float(value), 4) for value in curve.true_positive],
        },
    }


def _bin_line(kind: str, name: str, one: BinScores) -> str:
    start = f"{kind:<9}{name}{one.label:<15}{one.count:>7,}"
    if one.mean is None or one.quantiles is None:
        return start
    _, low, median, high, _ = one.quantiles
    return f"{start}{one.mean:>10.3f}{median:>10.3f}  {low:.3f} to {high:.3f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _all(values: Sequence[float] | None) -> list[float | None] | None:
    return None if values is None else [_rounded(value) for value in values]

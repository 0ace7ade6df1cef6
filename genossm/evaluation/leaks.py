"""Whether a model has seen what it is to be judged on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.errors import ConfigError
from genossm.data.regions import parse_regions
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome


def refuse_learnt_regions(model_directory: Path, genome: Genome, judged: Sequence[Interval]) -> None:
    """Raise ConfigError if the model's provenance says that it was trained or tuned on a base of `judged`.

    A model that does not say what it learnt from, or learnt from another reference, passes.
    """
    for name, interval in _learnt(model_directory, genome):
        for region in judged:
            shared = interval.intersect(region)
            if shared is not None:
                raise ConfigError(
                    f"{model_directory} has {interval} among its {name} regions, which shares {len(shared):,} bases "
                    f"with {region}: what is judged was learnt. Judge on other regions, or train without these."
                )


def _learnt(model_directory: Path, genome: Genome) -> list[tuple[str, Interval]]:
    try:
        content = json.loads((model_directory / "provenance.json").read_text())
        splits = content["extra"]["config"]["splits"]
        texts = {name: splits[name] for name in ("train", "validation")}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if content.get("reference_digest") != genome.reference_digest:
        return []
    return [
        (name, interval)
        for name, regions in texts.items()
        for interval in parse_regions(genome, map(str, regions if isinstance(regions, list) else [regions]))
    ]

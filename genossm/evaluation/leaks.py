"""Whether a model has seen what it is to be judged on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genossm.core.errors import ConfigError, ContigNotFoundError
from genossm.data.regions import parse_regions
from genossm.data.splits_bed import subtract
from genossm.sequence.interval import Interval, parse_region

if TYPE_CHECKING:
    from genossm.genome import Genome


def refuse_learnt_regions(model_directory: Path, genome: Genome, judged: Sequence[Interval]) -> None:
    """Raise ConfigError if the model's provenance says that it was trained or tuned on a base of `judged`.

    A model that does not say what it learnt from passes. One that learnt from another reference file is judged by the
    contigs that the two share, whatever they are called, if it recorded their digests as shipped models do; a contig
    that was cut is another contig.
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
        texts = {name: _listed(splits.get(name, ())) for name in ("train", "validation", "exclude")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if content.get("reference_digest") == genome.reference_digest:
        train, validation, holes = (parse_regions(genome, regions) for regions in texts.values())
    else:
        train, validation, holes = (_on_shared(content, genome, regions) for regions in texts.values())
    learnt = {"train": subtract(train, holes) if train else (), "validation": validation}
    return [(name, interval) for name, regions in learnt.items() for interval in regions]


def _on_shared(content: Mapping[str, Any], genome: Genome, regions: Sequence[str]) -> tuple[Interval, ...]:
    """`regions` of another reference, as far as `genome` has their contigs, letter by letter."""
    recorded: Mapping[str, Any] = content["extra"].get("contigs", {})
    here = {genome.digest(contig): contig for contig in genome.contigs} if recorded else {}

    def length_of(contig: str) -> int:
        if contig not in recorded:
            raise ContigNotFoundError(f"The model's record has no contig {contig!r}.")
        return recorded[contig]["length"]

    found = []
    for text in regions if recorded else ():
        region = parse_region(text, length_of)
        contig = here.get(recorded[region.contig]["md5"])
        if contig is not None:
            found.append(Interval(contig, region.start, region.end))
    return tuple(found)


def _listed(regions: object) -> list[str]:
    """A configuration has one region or several; YAML reads a contig named `20` as a number."""
    return [str(region) for region in (regions if isinstance(regions, list | tuple) else [regions])]

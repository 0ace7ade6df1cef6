"""One method's bits per base by how much sequence it could see: what `genossm evaluate context` writes.

All methods are judged on the same bases at every context, so that any two figures may be subtracted block by block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import atomic_file
from genossm.core.errors import InputFileError
from genossm.core.provenance import Provenance
from genossm.sequence.interval import Interval

FORMAT, FORMAT_VERSION = "genossm-context", 1


@dataclass(frozen=True, eq=False)
class ContextBits:
    """What a method needs for the bases of `regions`, summed over blocks and classes of places.

    name, objective: of the method; objective "causal" or "masked".   details: what kind of method it is.
    contexts: bases a window; see `base_log_probabilities` and `hidden_log_probabilities` for what a base sees of it.
    places: (contig, start0) of every block of at most `block` bases.   classes: names of the kinds of places.
    nats: (contexts, blocks, classes) sums of -ln p.   counts: (blocks, classes) bases scored.
    kept: context to -ln p of every base as float16, one array a region; 0 where a base is not scored.
    """

    name: str
    objective: str
    details: Mapping[str, Any]
    regions: tuple[Interval, ...]
    contexts: tuple[int, ...]
    block: int
    places: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]
    nats: NDArray[np.float64]
    counts: NDArray[np.int64]
    kept: Mapping[int, tuple[NDArray[np.float16], ...]] = field(default_factory=dict)

    def bits(self) -> NDArray[np.float64]:
        """(contexts,) bits per scored base."""
        return self.nats.sum(axis=(1, 2)) / self.counts.sum() / math.log(2.0)


def write_context(bits: ContextBits, path: Path, *, provenance: Provenance, force: bool = False) -> None:
    """Write a compressed npz file, whole or not at all. Raises: OutputExistsError without `force`."""
    described = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": bits.name,
        "objective": bits.objective,
        "details": dict(bits.details),
        "regions": [str(region) for region in bits.regions],
        "contexts": list(bits.contexts),
        "block": bits.block,
        "places": [list(place) for place in bits.places],
        "classes": list(bits.classes),
        "kept": sorted(bits.kept),
        "provenance": provenance.as_dict(),
    }
    arrays: dict[str, Any] = {
        f"kept_{context}_{i}": values for context, parts in bits.kept.items() for i, values in enumerate(parts)
    }
    with atomic_file(path, force=force) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(
            handle, description=np.array(json.dumps(described)), nats=bits.nats, counts=bits.counts, **arrays
        )


def read_context(path: Path) -> ContextBits:
    """Read what `write_context` wrote. Raises: InputFileError for any other file."""
    try:
        with np.load(path) as content:
            described = json.loads(str(content["description"]))
            if described["format"] != FORMAT or described["format_version"] > FORMAT_VERSION:
                raise ValueError(f"it holds {described['format']} of version {described['format_version']}")
            regions = tuple(map(Interval.parse, described["regions"]))
            return ContextBits(
                described["name"],
                described["objective"],
                described["details"],
                regions,
                tuple(described["contexts"]),
                described["block"],
                tuple((contig, start) for contig, start in described["places"]),
                tuple(described["classes"]),
                content["nats"],
                content["counts"],
                {c: tuple(content[f"kept_{c}_{i}"] for i in range(len(regions))) for c in described["kept"]},
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(
            f"Cannot read {path}: {error}. Wanted a file of `genossm evaluate context`; write it again."
        ) from error

"""What kind of place each judged base stands in: inside or outside repeats, and how far back the last copy lies.

Repeat: at least one of the up to 24 words of 24 bases that cover the base occurs ten times or more in the training
sequence, both strands counted together. The words hold the base itself: a base that breaks a copy is outside, so that
what is inside is easier than what a reader would meet after a frequent word.

Copy: the 24 bases just before the place stood, on either strand, once before within the last 524,288 bases of the
same contig. The reach of a copy is the number of bases from the place back to the first base of the latest one:
what a reader of fewer bases cannot have seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import ConfigError, InputFileError
from genossm.core.provenance import Provenance
from genossm.data.regions import parse_regions, refuse_overlaps
from genossm.evaluation.kmers import (
    EMPTY,
    bases_since,
    canonical_words,
    count_entered,
    enter_words,
    look_up,
    table_bits,
)
from genossm.evaluation.markov import base_codes
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

WORD, REPEATED = 24, 10
REACHES = (512, 8192, 65_536, 524_288)
OUTSIDE, INSIDE = "outside repeats", "inside repeats"
NO_COPY = f"no copy within {REACHES[-1]:,}"
FORMAT = "genossm-places"
_PIECE = 1 << 24


def copy_names() -> tuple[str, ...]:
    """The kinds of reach, nearest first, none last."""
    farther = (f"copy {nearer + 1:,} to {reach:,} back" for nearer, reach in pairwise(REACHES))
    return (f"copy within {REACHES[0]:,}", *farther, NO_COPY)


CLASSES = tuple(f"{repeat}; {copy}" for repeat in (OUTSIDE, INSIDE) for copy in copy_names())


@dataclass(frozen=True, eq=False)
class Places:
    """regions: what was classified.   classes: (length,) a region, indices of `names`.   contigs: name to M5."""

    regions: tuple[Interval, ...]
    classes: tuple[NDArray[np.uint8], ...]
    contigs: dict[str, str]
    names: tuple[str, ...] = CLASSES

    def numbers(self) -> dict[str, int]:
        """How many bases are of each class."""
        counted = sum(np.bincount(classes, minlength=len(self.names)) for classes in self.classes)
        return {name: int(number) for name, number in zip(self.names, np.asarray(counted))}

    def of(self, genome: Genome, region: Interval) -> NDArray[np.uint8]:
        """(length,) classes of a region of `genome`.

        Raises: ConfigError if it was not classified, or the contig's sequence is another.
        """
        for known, classes in zip(self.regions, self.classes):
            if genome.resolve(known.contig) == region.contig and known.start <= region.start <= region.end <= known.end:
                if genome.digest(region.contig) != self.contigs[known.contig]:
                    raise ConfigError(
                        f"The places were classified on another sequence than {genome.name} has as {region.contig}. "
                        "Classify them again with `genossm evaluate places`."
                    )
                return classes[region.start - known.start : region.end - known.start]
        raise ConfigError(
            f"{region} is not among the classified regions ({', '.join(map(str, self.regions))}). "
            "Classify it with `genossm evaluate places`."
        )


def classify_places(genome: Genome, train: Sequence[Interval], regions: Sequence[Interval]) -> Places:
    """Classify every base of `regions`, with repeats counted in `train`.

    Raises: ConfigError if the two share a base, or a region is given twice.
    """
    refuse_overlaps({"train": train, "test": regions})
    repeats = _repeats(genome, train, regions)
    copies = [_copies(genome, region) for region in regions]
    classes = tuple(
        (repeat.astype(np.uint8) * np.uint8(len(copy_names())) + copy) for repeat, copy in zip(repeats, copies)
    )
    return Places(tuple(regions), classes, {region.contig: genome.digest(region.contig) for region in regions})


def run_evaluate_places(
    genome_path: str, *, train: Sequence[str], regions: Sequence[str], output: Path, force: bool = False
) -> Places:
    """Open, classify, write: what `genossm evaluate places` does."""
    import genossm.genome

    refuse_overwrite(output, force=force)
    with genossm.genome.open(genome_path) as genome:
        places = classify_places(genome, parse_regions(genome, train), parse_regions(genome, regions))
        provenance = Provenance(reference_digest=genome.reference_digest)
    write_places(places, output, provenance=provenance, force=force)
    return places


def write_places(places: Places, path: Path, *, provenance: Provenance, force: bool = False) -> None:
    """Write a compressed npz file, whole or not at all."""
    described = {
        "format": FORMAT,
        "format_version": 1,
        "names": list(places.names),
        "regions": [str(region) for region in places.regions],
        "contigs": places.contigs,
        "provenance": provenance.as_dict(),
    }
    arrays: dict[str, Any] = {f"classes_{i}": classes for i, classes in enumerate(places.classes)}
    with atomic_file(path, force=force) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, description=np.array(json.dumps(described)), **arrays)


def read_places(path: Path) -> Places:
    """Read what `write_places` wrote. Raises: InputFileError for any other file."""
    try:
        with np.load(path) as content:
            described = json.loads(str(content["description"]))
            if described["format"] != FORMAT:
                raise ValueError(f"it holds {described['format']}")
            regions = tuple(map(Interval.parse, described["regions"]))
            classes = tuple(content[f"classes_{i}"] for i in range(len(regions)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(
            f"Cannot read {path}: {error}. Wanted a file of `genossm evaluate places`; write it again."
        ) from error
    return Places(regions, classes, described["contigs"], tuple(described["names"]))


def _repeats(genome: Genome, train: Sequence[Interval], regions: Sequence[Interval]) -> list[NDArray[np.bool_]]:
    """(length,) a region: whether a word that occurs often in training covers the base."""
    around = [_widened(genome, region, WORD - 1, WORD - 1) for region in regions]
    words = [canonical_words(base_codes(genome.fetch_array(wide)), WORD) for wide in around]
    bits = table_bits(sum(map(len, words)))
    keys, counts = np.full(1 << bits, EMPTY, np.uint64), np.zeros(1 << bits, np.uint32)
    for found in words:
        enter_words(found, keys, bits)
    for piece in _pieces(train):
        count_entered(canonical_words(base_codes(genome.fetch_array(piece)), WORD), keys, counts, bits)
    result = []
    for region, wide, found in zip(regions, around, words):
        often = look_up(found, keys, counts, bits) >= REPEATED
        # A word that ends at i covers i and the 23 bases before it.
        ends = np.concatenate([[0], np.cumsum(often)])
        place = np.arange(region.start, region.end) - wide.start
        result.append(ends[np.minimum(place + WORD, len(often))] > ends[place])
    return result


def _pieces(regions: Sequence[Interval]) -> Iterable[Interval]:
    """Stretches of bounded length in which every word of `regions` ends exactly once."""
    for region in regions:
        for start in range(region.start, region.end, _PIECE):
            end = min(start + _PIECE, region.end)
            yield Interval(region.contig, max(region.start, start - WORD + 1), end)


def _copies(genome: Genome, region: Interval) -> NDArray[np.uint8]:
    """(length,) index of `copy_names` for each base."""
    wide = _widened(genome, region, REACHES[-1] + 1, 0)
    words = canonical_words(base_codes(genome.fetch_array(wide)), WORD)
    since = bases_since(words, table_bits(len(words)))
    # The word before place t ends at t - 1, and its copy begins WORD - 1 bases before that one's end.
    before = np.concatenate([[0], since])[region.start - wide.start : region.end - wide.start]
    reach = np.where(before > 0, before + WORD, REACHES[-1] + 1)
    return np.searchsorted(np.array(REACHES), reach).astype(np.uint8)


def _widened(genome: Genome, region: Interval, left: int, right: int) -> Interval:
    end = min(region.end + right, genome.length(region.contig))
    return Interval(region.contig, max(0, region.start - left), end)

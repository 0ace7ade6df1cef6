"""How fast random windows come out of a genome: a table over chunk lengths and codecs, and what else people use.

    python -m genossm.testing.benchmark_genome FASTA

Windows of 1,048,576 bases at random places, token ids out, half of them of the minus strand; one process, warm.
Rows: what was read, chunk length, bases a file where a file holds several chunks (sharding), bytes a base on disk,
files, seconds to build, median Gb/s of those windows, and of windows of 8,192 bases. Rows compare within a run alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

import genossm.genome
from genossm.genome.build import DEFAULT_CHUNK_LENGTH, DEFAULT_CODEC, Codec
from genossm.genome.layout import SEQUENCE, array_path
from genossm.sequence import Interval, NucleotideTokenizer

WINDOW = 1 << 20
SMALL_WINDOW = 1 << 13
CHUNK_LENGTHS = (1 << 16, 1 << 17, 1 << 18, 1 << 20, 1 << 22)
# Chunk and shard lengths, with the default codec.
SHARDED = ((1 << 16, 1 << 22), (1 << 18, 1 << 22), (1 << 18, 1 << 24))
COLUMNS = ("read", "chunk_length", "shard_length", "bytes_a_base", "files", "build_s", "Gb_a_s", "small_Gb_a_s")

Read = Callable[[Interval], object]


def windows(genome: genossm.genome.Genome, count: int, *, length: int = WINDOW, seed: int = 0) -> list[Interval]:
    """Random windows of the longest contig (whole if it is shorter), strands in turn."""
    contig = max(genome.contigs, key=genome.length)
    length = min(length, genome.length(contig))
    starts = np.random.default_rng(seed).integers(0, genome.length(contig) - length + 1, count)
    return [Interval(contig, int(start), int(start) + length, "+-"[i % 2]) for i, start in enumerate(starts)]


def rate(read: Read, places: list[Interval]) -> float:
    """Median bases a second, after two windows to warm up."""
    seconds = []
    for place in [*places[:2], *places]:
        started = time.perf_counter()
        read(place)
        seconds.append(time.perf_counter() - started)
    return len(places[0]) / float(np.median(seconds[2:]))


def main(fasta: Path, *, count: int = 48) -> None:
    """Print the table to stdout."""
    print(*COLUMNS, sep="\t")
    with genossm.genome.open(fasta) as genome:
        places = Places(windows(genome, count), windows(genome, 4 * count, length=SMALL_WINDOW))
        size = fasta.stat().st_size / sum(genome.lengths.values())
        _print("genossm FASTA", _read_tokens(genome), places, bytes_a_base=f"{size:.3f}", files="1")
    with tempfile.TemporaryDirectory() as folder:
        for codec in get_args(Codec):
            for chunk_length in CHUNK_LENGTHS:
                _store_row(fasta, Path(folder), places, codec, chunk_length)
        for chunk_length, shard_length in SHARDED:
            _store_row(fasta, Path(folder), places, DEFAULT_CODEC, chunk_length, shard_length)
        _peer_rows(fasta, Path(folder), places)


@dataclass(frozen=True)
class Places:
    """Windows that every row reads."""

    large: list[Interval]
    small: list[Interval]


def _print(name: str, read: Read, places: Places, **known: str) -> None:
    speeds = {"Gb_a_s": rate(read, places.large), "small_Gb_a_s": rate(read, places.small)}
    row = {"read": name, **known, **{column: f"{speed / 1e9:.3f}" for column, speed in speeds.items()}}
    print(*(row.get(column, "") for column in COLUMNS), sep="\t")


def _read_tokens(genome: genossm.genome.Genome) -> Read:
    tokenizer = NucleotideTokenizer()
    return lambda place: genome.encode(place, tokenizer)


def _store_row(
    fasta: Path, folder: Path, places: Places, codec: Codec, chunk_length: int, shard_length: int | None = None
) -> None:
    path = folder / f"{codec}-{chunk_length}-{shard_length}.zarr"
    summary = genossm.genome.build(fasta, path, codec=codec, chunk_length=chunk_length, shard_length=shard_length)
    files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    known = {
        "chunk_length": str(chunk_length),
        "shard_length": str(shard_length or ""),
        "bytes_a_base": f"{sum(files) / summary.bases:.3f}",
        "files": str(len(files)),
        "build_s": f"{summary.seconds:.1f}",
    }
    with genossm.genome.open(path) as genome:
        _print(f"store {codec}", _read_tokens(genome), places, **known)


def _peer_rows(fasta: Path, folder: Path, places: Places) -> None:
    """The same windows through other libraries, with the fewest steps that end in the same token ids."""
    import pyfaidx
    import pysam
    import zarr

    tokenizer, contig = NucleotideTokenizer(), places.large[0].contig
    with genossm.genome.open(fasta) as genome:
        letters = genome.fetch_array(Interval(contig, 0, genome.length(contig)))
    plain = folder / "peer.fa"
    plain.write_bytes(
        f">{contig}\n".encode() + b"\n".join(letters[i : i + 60].tobytes() for i in range(0, len(letters), 60))
    )
    raw = folder / "peer.u8"
    letters.tofile(raw)
    mapped = np.memmap(raw, dtype=np.uint8, mode="r")
    default = f"{DEFAULT_CODEC}-{DEFAULT_CHUNK_LENGTH}-None.zarr"
    array = zarr.open_array(str(folder / default / array_path(SEQUENCE, contig)), mode="r")
    with pysam.FastaFile(str(plain)) as file, pyfaidx.Fasta(str(plain), as_raw=True, sequence_always_upper=True) as fai:
        peers: dict[str, Read] = {
            "NumPy memmap": lambda place: mapped[place.start : place.end],
            "Zarr indexing of the default store": lambda place: np.asarray(array[place.start : place.end]),
            "pysam.FastaFile, plain": lambda place: file.fetch(contig, place.start, place.end),
            "pyfaidx.Fasta, plain": lambda place: fai[contig][place.start : place.end],
        }
        for name, fetch in peers.items():
            _print(name, lambda place, fetch=fetch: _finish(tokenizer, fetch(place), place.strand), places)


def _finish(tokenizer: NucleotideTokenizer, letters: object, strand: str) -> object:
    ids = tokenizer.encode(letters)  # type: ignore[arg-type]
    return tokenizer.reverse_complement(ids) if strand == "-" else ids


if __name__ == "__main__":
    main(Path(sys.argv[1]))

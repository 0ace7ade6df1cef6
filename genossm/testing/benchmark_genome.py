"""How fast random windows come out of a genome: a table over chunk lengths and codecs, and what else people use.

    python -m genossm.testing.benchmark_genome FASTA [--busy]

Windows of 1,048,576 bases at random places, token ids out, half of them of the minus strand; one process, warm.
Rows: what was read, chunk length, bases a file where a file holds several chunks (sharding), bytes a base on disk,
files, seconds to build, median Gb/s of those windows, and of windows of 8,192 bases. Rows compare within a run alone.
--busy: for a machine that does other things besides. The rows read each window in turn, and the quartile of the fastest
readings counts: what disturbs, disturbs all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Row:
    """One way to read.   known: its columns but the speeds."""

    read: Read
    known: dict[str, str] = field(default_factory=dict)


def windows(genome: genossm.genome.Genome, count: int, *, length: int = WINDOW, seed: int = 0) -> list[Interval]:
    """Random windows of the longest contig (whole if it is shorter), strands in turn."""
    contig = max(genome.contigs, key=genome.length)
    length = min(length, genome.length(contig))
    starts = np.random.default_rng(seed).integers(0, genome.length(contig) - length + 1, count)
    return [Interval(contig, int(start), int(start) + length, "+-"[i % 2]) for i, start in enumerate(starts)]


def rates(rows: list[Row], places: list[Interval], *, busy: bool) -> list[float]:
    """Bases a second of each row, after two windows to warm up."""
    seconds: list[list[float]] = [[] for _ in rows]
    warmed = [*places[:2], *places]
    every = [(number, place) for number in range(len(rows)) for place in warmed]
    in_turn = [(number, place) for place in warmed for number in range(len(rows))]
    for number, place in in_turn if busy else every:
        started = time.perf_counter()
        rows[number].read(place)
        seconds[number].append(time.perf_counter() - started)
    return [len(places[0]) / float(np.quantile(times[2:], 0.25 if busy else 0.5)) for times in seconds]


def main(fasta: Path, *, count: int = 48, busy: bool = False) -> None:
    """Print the table to stdout."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        rows = [_fasta_row(fasta, stack)]
        for codec in get_args(Codec):
            for chunk_length in CHUNK_LENGTHS:
                rows.append(_store_row(fasta, Path(folder), stack, codec, chunk_length))
        for chunk_length, shard_length in SHARDED:
            rows.append(_store_row(fasta, Path(folder), stack, DEFAULT_CODEC, chunk_length, shard_length))
        rows += _peer_rows(fasta, Path(folder), stack)
        with genossm.genome.open(fasta) as genome:
            large, small = windows(genome, count), windows(genome, 4 * count, length=SMALL_WINDOW)
        speeds = zip(rates(rows, large, busy=busy), rates(rows, small, busy=busy))
        print(*COLUMNS, sep="\t")
        for row, (large_speed, small_speed) in zip(rows, speeds):
            known = {**row.known, "Gb_a_s": f"{large_speed / 1e9:.3f}", "small_Gb_a_s": f"{small_speed / 1e9:.3f}"}
            print(*(known.get(column, "") for column in COLUMNS), sep="\t")


def _tokens(genome: genossm.genome.Genome) -> Read:
    tokenizer = NucleotideTokenizer()
    return lambda place: genome.encode(place, tokenizer)


def _fasta_row(fasta: Path, stack: ExitStack) -> Row:
    genome = stack.enter_context(genossm.genome.open(fasta))
    size = fasta.stat().st_size / sum(genome.lengths.values())
    return Row(_tokens(genome), {"read": "genossm FASTA", "bytes_a_base": f"{size:.3f}", "files": "1"})


def _store_row(
    fasta: Path, folder: Path, stack: ExitStack, codec: Codec, chunk_length: int, shard_length: int | None = None
) -> Row:
    path = folder / _name(codec, chunk_length, shard_length)
    summary = genossm.genome.build(fasta, path, codec=codec, chunk_length=chunk_length, shard_length=shard_length)
    files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    known = {
        "read": f"store {codec}",
        "chunk_length": str(chunk_length),
        "shard_length": str(shard_length or ""),
        "bytes_a_base": f"{sum(files) / summary.bases:.3f}",
        "files": str(len(files)),
        "build_s": f"{summary.seconds:.1f}",
    }
    return Row(_tokens(stack.enter_context(genossm.genome.open(path))), known)


def _name(codec: Codec, chunk_length: int, shard_length: int | None = None) -> str:
    return f"{codec}-{chunk_length}-{shard_length or 0}.zarr"


def _peer_rows(fasta: Path, folder: Path, stack: ExitStack) -> Iterator[Row]:
    """The same windows through other libraries, with the fewest steps that end in the same token ids."""
    import pyfaidx
    import pysam
    import zarr

    with genossm.genome.open(fasta) as genome:
        contig = max(genome.contigs, key=genome.length)
        letters = genome.fetch_array(Interval(contig, 0, genome.length(contig)))
    plain = folder / "peer.fa"
    plain.write_bytes(
        f">{contig}\n".encode() + b"\n".join(letters[i : i + 60].tobytes() for i in range(0, len(letters), 60))
    )
    raw = folder / "peer.u8"
    letters.tofile(raw)
    mapped = np.memmap(raw, dtype=np.uint8, mode="r")
    store = folder / _name(DEFAULT_CODEC, DEFAULT_CHUNK_LENGTH)
    array = zarr.open_array(str(store / array_path(SEQUENCE, contig)), mode="r")
    file = stack.enter_context(pysam.FastaFile(str(plain)))
    fasta_file = stack.enter_context(pyfaidx.Fasta(str(plain), as_raw=True, sequence_always_upper=True))
    peers: dict[str, Read] = {
        "NumPy memmap": lambda place: mapped[place.start : place.end],
        "Zarr indexing of the default store": lambda place: np.asarray(array[place.start : place.end]),
        "pysam.FastaFile, plain": lambda place: file.fetch(contig, place.start, place.end),
        "pyfaidx.Fasta, plain": lambda place: fasta_file[contig][place.start : place.end],
    }
    for name, fetch in peers.items():
        yield Row(_finished(fetch), {"read": name})


def _finished(fetch: Read) -> Read:
    tokenizer = NucleotideTokenizer()

    def read(place: Interval) -> object:
        ids = tokenizer.encode(fetch(place))  # type: ignore[arg-type]
        return tokenizer.reverse_complement(ids) if place.strand == "-" else ids

    return read


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How fast random windows come out of a genome.")
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--busy", action="store_true", help="for a machine that does other things besides")
    chosen = parser.parse_args()
    main(chosen.fasta, busy=chosen.busy)

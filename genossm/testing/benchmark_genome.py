"""How fast random windows come out of a genome: a table over chunk lengths and codecs, and what else people use.

    python -m genossm.testing.benchmark_genome FASTA

Windows of 1,048,576 bases at random places, token ids out, half of them of the minus strand; one process, warm.
Rows: what was read, chunk length, bytes a base on disk, seconds to build, median Gb/s.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np

import genossm.genome
from genossm.genome.build import Codec
from genossm.sequence import Interval, NucleotideTokenizer

WINDOW = 1 << 20
CHUNK_LENGTHS = (1 << 16, 1 << 17, 1 << 18, 1 << 20)

Read = Callable[[Interval], object]


def windows(genome: genossm.genome.Genome, count: int, *, seed: int = 0) -> list[Interval]:
    """Random windows of the longest contig (whole if it is shorter), strands in turn."""
    contig = max(genome.contigs, key=genome.length)
    length = min(WINDOW, genome.length(contig))
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
    tokenizer = NucleotideTokenizer()
    print("read", "chunk_length", "bytes_a_base", "build_s", "Gb_a_s", sep="\t")
    with genossm.genome.open(fasta) as genome:
        places = windows(genome, count)
        speed = rate(lambda place: genome.encode(place, tokenizer), places)
        print(
            "genossm FASTA",
            "",
            f"{fasta.stat().st_size / sum(genome.lengths.values()):.3f}",
            "",
            f"{speed / 1e9:.2f}",
            sep="\t",
        )
    with tempfile.TemporaryDirectory() as folder:
        for codec in get_args(Codec):
            for chunk_length in CHUNK_LENGTHS:
                _store_row(fasta, Path(folder) / f"{codec}-{chunk_length}.zarr", codec, chunk_length, places)
        _peer_rows(fasta, Path(folder), places)


def _store_row(fasta: Path, path: Path, codec: Codec, chunk_length: int, places: list[Interval]) -> None:
    tokenizer = NucleotideTokenizer()
    summary = genossm.genome.build(fasta, path, codec=codec, chunk_length=chunk_length)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / summary.bases
    with genossm.genome.open(path) as genome:
        speed = rate(lambda place: genome.encode(place, tokenizer), places)
    print(f"store {codec}", chunk_length, f"{size:.3f}", f"{summary.seconds:.1f}", f"{speed / 1e9:.2f}", sep="\t")


def _peer_rows(fasta: Path, folder: Path, places: list[Interval]) -> None:
    """The same windows through other libraries, with the fewest steps that end in the same token ids."""
    import pysam
    import zarr

    tokenizer, contig = NucleotideTokenizer(), places[0].contig
    with genossm.genome.open(fasta) as genome:
        letters = genome.fetch_array(Interval(contig, 0, genome.length(contig)))
    plain = folder / "peer.fa"
    plain.write_bytes(
        f">{contig}\n".encode() + b"\n".join(letters[i : i + 60].tobytes() for i in range(0, len(letters), 60))
    )
    raw = folder / "peer.u8"
    letters.tofile(raw)
    mapped = np.memmap(raw, dtype=np.uint8, mode="r")
    array = zarr.open_array(str(next(folder.glob("blosc-lz4-262144.zarr/sequence/*/zarr.json")).parent), mode="r")
    peers: dict[str, Callable[[Interval], object]] = {
        "NumPy memmap": lambda place: mapped[place.start : place.end],
        "Zarr indexing (blosc-lz4, 262144)": lambda place: np.asarray(array[place.start : place.end]),
    }
    with pysam.FastaFile(str(plain)) as file:
        peers["pysam.FastaFile, plain"] = lambda place: file.fetch(contig, place.start, place.end)
        for name, fetch in peers.items():
            speed = rate(lambda place, fetch=fetch: _finish(tokenizer, fetch(place), place.strand), places)
            print(name, "", "", "", f"{speed / 1e9:.2f}", sep="\t")


def _finish(tokenizer: NucleotideTokenizer, letters: object, strand: str) -> object:
    ids = tokenizer.encode(letters)  # type: ignore[arg-type]
    return tokenizer.reverse_complement(ids) if strand == "-" else ids


if __name__ == "__main__":
    main(Path(sys.argv[1]))

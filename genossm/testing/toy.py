"""Toy genomes: small, seeded, with the things that trip readers up. For tests of your own extensions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def random_sequence(length: int, *, seed: int = 0, letters: bytes = b"ACGT") -> bytes:
    """Independent uniform letters."""
    return np.random.default_rng(seed).choice(np.frombuffer(letters, dtype=np.uint8), size=length).tobytes()


def repetitive_sequence(length: int, *, seed: int = 0) -> bytes:
    """Random sequence with tandem repeats of units of 1 to 6 bases, in which indels have many placements."""
    rng = np.random.default_rng(seed)
    pieces: list[bytes] = []
    done = 0
    while done < length:
        unit = rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), size=int(rng.integers(1, 7))).tobytes()
        piece = unit * int(rng.integers(1, 8))
        pieces.append(piece)
        done += len(piece)
    return b"".join(pieces)[:length]


def toy_genome(*, seed: int = 0, length: int = 5000) -> dict[str, bytes]:
    """Three contigs: "chr1" with a run of N at its start, soft-masked stretches and an IUPAC code; "chr2", repetitive;
    "chrM", short.

    length: bases of chr1 (at least 100); the others are a half and a tenth of it.
    """
    first = bytearray(random_sequence(length, seed=seed))
    tenth = length // 10
    first[:tenth] = b"N" * tenth
    first[3 * tenth : 4 * tenth] = first[3 * tenth : 4 * tenth].lower()
    first[4 * tenth + 5 : 4 * tenth + 6] = b"a"
    first[5 * tenth : 5 * tenth + 1] = b"R"
    return {
        "chr1": bytes(first),
        "chr2": repetitive_sequence(length // 2, seed=seed + 1),
        "chrM": random_sequence(tenth, seed=seed + 2),
    }


def write_fasta(
    path: Path, contigs: Mapping[str, bytes], *, line_length: int = 60, line_end: bytes = b"\n", bgzip: bool = False
) -> Path:
    """Write contigs as FASTA, plain or bgzip, and return the path."""
    lines: list[bytes] = []
    for name, sequence in contigs.items():
        lines.append(b">" + name.encode())
        lines.extend(sequence[start : start + line_length] for start in range(0, len(sequence), line_length))
    text = b"".join(line + line_end for line in lines)
    if bgzip:
        import pysam

        with pysam.BGZFile(str(path), "wb", index=None) as handle:
            handle.write(text)
    else:
        path.write_bytes(text)
    return path

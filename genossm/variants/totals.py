"""How many records a file has, where that costs next to nothing: for the time that is left."""

from __future__ import annotations

import gzip
from pathlib import Path

import pysam
import pysam.bcftools

from genossm.variants.vcf_input import quiet_htslib

# Bytes of a file that are counted through: about a second.
_PLAIN = 1 << 30
_PACKED = 1 << 26
_PIECE = 1 << 20


def count_records(source: str | Path) -> int | None:
    """By its index, or by counting the lines of a small file; None for a stream, a large file, or anything odd.

    Whether the file can be read at all is found out by who reads it.
    """
    path = Path(source)
    if str(source) == "-" or not path.is_file():
        return None
    indexed = _by_index(path)
    return _by_lines(path) if indexed is None else indexed


def _by_index(path: Path) -> int | None:
    if not any(Path(f"{path}{suffix}").is_file() for suffix in (".tbi", ".csi")):
        return None
    try:
        with quiet_htslib():
            return int(str(pysam.bcftools.index("-n", str(path))))
    except (pysam.SamtoolsError, ValueError):
        return None


def _by_lines(path: Path) -> int | None:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if path.stat().st_size > (_PACKED if packed else _PLAIN):
        return None
    lines, last = 0, b"\n"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            if not file.peek(2).startswith(b"##"):
                return None
            while file.readline().startswith(b"##"):
                pass
            while piece := file.read(_PIECE):
                lines, last = lines + piece.count(b"\n"), piece[-1:]
    except (OSError, EOFError, gzip.BadGzipFile):
        return None
    return lines + (last != b"\n")

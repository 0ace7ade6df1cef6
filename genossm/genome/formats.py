"""Which format a reference is in: by what stands in the file, never by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from genossm.genome.raw import head_of
from genossm.genome.remote import is_url, remote_path
from genossm.genome.source import Source

Format = Literal["store", "fasta", "2bit", "genbank", "embl"]

_TWO_BIT = 0x1A412743
_HEAD = 1 << 14
# GenBank release files put a few lines of their own before the first record.
_GENBANK = re.compile(rb"(?:^|\n)LOCUS {2,}\S")
_EMBL = re.compile(rb"\s*ID {3}\S")


def format_of(path: Path) -> Format:
    """The format of a file or folder, which need not be whole; what is none of the others is taken for FASTA.

    Raises: InputFileError if it is missing, unreadable or empty.
    """
    if path.is_dir():
        return "store"
    head = head_of(path, _HEAD)
    if _TWO_BIT in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")):
        return "2bit"
    if head.startswith(b">"):
        return "fasta"
    if _GENBANK.search(head):
        return "genbank"
    return "embl" if _EMBL.match(head) else "fasta"


def open_source(path: str | os.PathLike[str]) -> Source:
    """The reader of a file's or folder's format, opened; behind a URL there must be a genome store.

    Readers are imported when they are needed.
    Raises: InputFileError for a file that is missing, cut off, or of no known format.
    """
    if is_url(path):
        from genossm.genome.store import StoreSource

        return StoreSource(remote_path(str(path)))
    path = Path(path)
    match format_of(path):
        case "store":
            from genossm.genome.store import StoreSource

            return StoreSource(path)
        case "2bit":
            from genossm.genome.two_bit import TwoBitSource

            return TwoBitSource(path)
        case "genbank" | "embl" as kind:
            from genossm.genome.flat_file import FlatFileSource

            return FlatFileSource(path, kind)
        case "fasta":
            from genossm.genome.fasta import FastaSource

            return FastaSource(path)

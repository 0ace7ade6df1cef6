"""References: FASTA files and genome stores behind one interface."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from genossm.genome.build import StoreSummary, build
from genossm.genome.genome import Genome
from genossm.genome.names import ContigNames, read_alias_file
from genossm.genome.source import Source

__all__ = ["ContigNames", "Genome", "StoreSummary", "build", "open", "read_alias_file"]


def open(
    path: str | os.PathLike[str], *, aliases: Mapping[str, str] | None = None, circular: Collection[str] = ()
) -> Genome:
    """Open a FASTA file (plain or bgzip) or a genome store (a directory that `genossm genome build` wrote).

    aliases: further names, alias to contig.   circular: contigs whose end joins their start.
    No index is written beside a FASTA file; where there is none, one is kept in the user's cache folder.
    Raises: InputFileError for a file that is missing, cut off, or not of these formats.
    """
    return Genome(_source(Path(path)), aliases=aliases, circular=circular)


def _source(path: Path) -> Source:
    if path.is_dir():
        from genossm.genome.store import StoreSource

        return StoreSource(path)
    from genossm.genome.fasta import FastaSource

    return FastaSource(path)

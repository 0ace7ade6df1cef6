"""References: FASTA files and genome stores behind one interface."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from genossm.genome.genome import Genome
from genossm.genome.names import ContigNames, read_alias_file

__all__ = ["ContigNames", "Genome", "open", "read_alias_file"]


def open(
    path: str | os.PathLike[str], *, aliases: Mapping[str, str] | None = None, circular: Collection[str] = ()
) -> Genome:
    """Open a FASTA file (plain or bgzip) or a genome store (a directory that `genossm genome build` wrote).

    aliases: further names, alias to contig.   circular: contigs whose end joins their start.
    No index is written beside a FASTA file; where there is none, one is kept in the user's cache folder.
    Raises: InputFileError for a file that is missing, cut off, or not of these formats.
    """
    from genossm.genome.fasta import FastaSource

    return Genome(FastaSource(Path(path)), aliases=aliases, circular=circular)

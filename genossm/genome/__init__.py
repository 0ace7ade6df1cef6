"""References behind one interface: FASTA, 2bit, GenBank and EMBL files, and genome stores."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from genossm.genome.build import StoreSummary, build
from genossm.genome.formats import open_source
from genossm.genome.genome import Genome
from genossm.genome.names import ContigNames, read_alias_file

__all__ = ["ContigNames", "Genome", "StoreSummary", "build", "open", "read_alias_file"]


def open(
    path: str | os.PathLike[str], *, aliases: Mapping[str, str] | None = None, circular: Collection[str] = ()
) -> Genome:
    """Open a FASTA file (plain or bgzip), a 2bit, GenBank or EMBL file, or a genome store (a directory, or its URL).

    The format is told by the content. GenBank and EMBL files are read into memory, as a whole; `build` a store from a
    large one.
    aliases: further names, alias to contig.   circular: contigs whose end joins their start.
    No index is written beside a FASTA file; where there is none, one is kept in the user's cache folder.
    Raises: InputFileError for a file that is missing, cut off, or not of these formats; MissingDependencyError for a
    URL without the extra `remote`.
    """
    return Genome(open_source(path), aliases=aliases, circular=circular)

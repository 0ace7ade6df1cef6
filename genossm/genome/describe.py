"""A genome in a table: one row a contig."""

from __future__ import annotations

from dataclasses import dataclass

from genossm.genome.genome import Genome
from genossm.genome.runs import total

HEADER = ("contig", "length", "topology", "m5", "n_bases", "aliases")


@dataclass(frozen=True)
class ContigRow:
    """m5: SAM digest of the sequence.   n_bases: how many bases are N.   aliases: every other name that resolves."""

    contig: str
    length: int
    topology: str
    m5: str
    n_bases: int
    aliases: tuple[str, ...]


def describe(genome: Genome) -> list[ContigRow]:
    """The contigs of a genome in its order. From a FASTA file this reads every base once."""
    return [
        ContigRow(
            contig=contig,
            length=genome.length(contig),
            topology="circular" if genome.is_circular(contig) else "linear",
            m5=genome.digest(contig),
            n_bases=total(genome.n_runs(contig)),
            aliases=genome.aliases(contig),
        )
        for contig in genome.contigs
    ]


def as_table(rows: list[ContigRow]) -> str:
    """Tab-separated text with a header line; aliases are joined by commas, `.` if there are none."""
    lines = [HEADER, *((r.contig, r.length, r.topology, r.m5, r.n_bases, ",".join(r.aliases) or ".") for r in rows)]
    return "\n".join("\t".join(map(str, line)) for line in lines)

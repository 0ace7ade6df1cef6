"""What a contig is called: `chr20` = `20` = its accessions, by rule, by table and by the user's own list."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from genossm.core.errors import ContigNotFoundError, InputFileError

_MITOCHONDRIA = frozenset({"M", "MT"})

# Length, RefSeq and GenBank accession of the human chromosomes (NCBI assemblies GCF_000001405.25 and .26). The length
# decides the assembly: a contig "20" gets the accessions of GRCh37 only if it is as long as GRCh37's.
_GRCH37_LENGTHS = (
    249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431, 135534747,
    135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983, 63025520, 48129895,
    51304566, 155270560, 59373566,
)  # fmt: skip
_GRCH37_VERSIONS = (10, 11, 11, 11, 9, 11, 13, 10, 11, 10, 9, 11, 10, 8, 9, 9, 10, 9, 9, 10, 8, 10, 10, 9)
_GRCH38_LENGTHS = (
    248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636, 138394717, 133797422,
    135086622, 133275309, 114364328, 107043718, 101991189, 90338345, 83257441, 80373285, 58617616, 64444167, 46709983,
    50818468, 156040895, 57227415,
)  # fmt: skip
_GRCH38_VERSIONS = (11, 12, 12, 12, 10, 12, 14, 11, 12, 11, 10, 12, 11, 9, 10, 10, 11, 10, 10, 11, 9, 11, 11, 10)
_HUMAN = (*map(str, range(1, 23)), "X", "Y")


def _human_table() -> dict[tuple[str, int], tuple[str, str]]:
    table = {("MT", 16569): ("NC_012920.1", "J01415.2")}
    for lengths, versions, genbank in ((_GRCH37_LENGTHS, _GRCH37_VERSIONS, 1), (_GRCH38_LENGTHS, _GRCH38_VERSIONS, 2)):
        for number, (name, length, version) in enumerate(zip(_HUMAN, lengths, versions, strict=True), start=1):
            table[name, length] = (f"NC_{number:06d}.{version}", f"CM{662 + number:06d}.{genbank}")
    return table


HUMAN_ACCESSIONS = _human_table()
"""(chromosome without "chr", length) to its (RefSeq, GenBank) accessions, for GRCh37 and GRCh38."""

_BY_ACCESSION = {
    accession: {name, *accessions} for (name, _), accessions in HUMAN_ACCESSIONS.items() for accession in accessions
}


class ContigNames:
    """Resolves every name of a contig to the one that the genome uses.

    A contig's own name always wins, then the user's aliases, then rule and table. An automatic alias that would
    mean two contigs means neither.
    Raises: InputFileError if a user's alias is another contig's name or stands for an unknown contig.
    """

    def __init__(self, lengths: Mapping[str, int], aliases: Mapping[str, str], genome: str) -> None:
        self._genome = genome
        self._contigs = tuple(lengths)
        self._canonical = {name: name for name in lengths}
        for alias, contig in aliases.items():
            if contig not in lengths:
                raise InputFileError(f"{genome}: alias {alias!r} is said to mean {contig!r}, which is no contig of it.")
            if alias in lengths and alias != contig:
                raise InputFileError(f"{genome}: {alias!r} is a contig of its own, so it cannot mean {contig!r}.")
            self._canonical[alias] = contig
        claims: dict[str, set[str]] = {}
        for contig, length in lengths.items():
            for alias in automatic_aliases(contig, length) - self._canonical.keys():
                claims.setdefault(alias, set()).add(contig)
        self._canonical |= {alias: contigs.pop() for alias, contigs in claims.items() if len(contigs) == 1}

    def resolve(self, name: str) -> str:
        """The genome's own name. Raises: ContigNotFoundError that names the nearest."""
        try:
            return self._canonical[name]
        except KeyError:
            pass
        near = difflib.get_close_matches(name, self._contigs, n=3, cutoff=0.5)
        if near:
            hint = f"Nearest: {', '.join(near)}."
        else:
            more = f" and {len(self._contigs) - 5} more" if len(self._contigs) > 5 else ""
            hint = f"It holds {', '.join(self._contigs[:5])}{more}."
        raise ContigNotFoundError(f"{self._genome} has no contig {name!r}. {hint}")

    def aliases(self, contig: str) -> tuple[str, ...]:
        """Every other name of a contig, sorted."""
        return tuple(sorted(alias for alias, name in self._canonical.items() if name == contig and alias != contig))


def automatic_aliases(contig: str, length: int) -> set[str]:
    """Names that mean this contig by the chr rule (M = MT) and by the human accession table."""
    known = _BY_ACCESSION.get(contig)
    bases = {name for name in (known or ()) if not name.startswith(("NC_", "CM", "J0"))} or {_without_prefix(contig)}
    if bases & _MITOCHONDRIA:
        bases = set(_MITOCHONDRIA)
    accessions = set(known or ())
    for base in bases:
        accessions.update(HUMAN_ACCESSIONS.get((base, length), ()))
    return (bases | {f"chr{base}" for base in bases} | accessions) - {contig}


def read_alias_file(path: Path) -> dict[str, str]:
    """Alias to contig, from lines of a contig's name and its aliases split by tabs; `#` starts a comment line.

    Raises: InputFileError naming the line that has one column only or gives an alias two meanings.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputFileError(f"No alias file at {path}. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"Cannot read alias file {path}: {error}.") from error
    aliases: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        contig, *others = (field.strip() for field in line.split("\t"))
        if not others:
            raise InputFileError(
                f"{path}, line {number}: {line!r} has one column; wanted a contig, a tab, its aliases."
            )
        for alias in filter(None, others):
            if aliases.setdefault(alias, contig) != contig:
                raise InputFileError(f"{path}, line {number}: {alias!r} means {aliases[alias]!r} already.")
    return aliases


def _without_prefix(contig: str) -> str:
    return contig[3:] if contig[:3].lower() == "chr" and len(contig) > 3 else contig

from __future__ import annotations

from pathlib import Path

import pytest

from genossm.core.errors import ContigNotFoundError, InputFileError
from genossm.genome import ContigNames, read_alias_file
from genossm.genome.names import HUMAN_ACCESSIONS

GRCH37_CHR20, GRCH38_CHR20 = 63_025_520, 64_444_167


def names(lengths: dict[str, int], aliases: dict[str, str] | None = None) -> ContigNames:
    return ContigNames(lengths, aliases or {}, "toy.fa")


@pytest.mark.parametrize(
    ("contig", "length", "aliases"),
    [
        ("20", 4_000_000, {"chr20"}),
        ("chr20", 4_000_000, {"20"}),
        ("20", GRCH37_CHR20, {"chr20", "NC_000020.10", "CM000682.1"}),
        ("chr20", GRCH38_CHR20, {"20", "NC_000020.11", "CM000682.2"}),
        # An accession names its assembly, so a piece of it keeps its other names.
        ("NC_000020.10", 1000, {"20", "chr20", "CM000682.1"}),
        ("CM000682.2", 1000, {"20", "chr20", "NC_000020.11"}),
        ("chrM", 16_571, {"M", "MT", "chrMT"}),
        ("MT", 16_569, {"M", "chrM", "chrMT", "NC_012920.1", "J01415.2"}),
        ("chrX", 156_040_895, {"X", "NC_000023.11", "CM000685.2"}),
        ("Chr1", 30_427_671, {"1", "chr1"}),
        ("scaffold_7", 500, {"chrscaffold_7"}),
    ],
)
def test_automatic_aliases(contig: str, length: int, aliases: set[str]) -> None:
    resolver = names({contig: length})
    assert set(resolver.aliases(contig)) == aliases
    for alias in aliases | {contig}:
        assert resolver.resolve(alias) == contig


def test_the_human_table_is_that_of_the_assembly_reports() -> None:
    reports = {
        "GRCh37": "10 11 11 11 9 11 13 10 11 10 9 11 10 8 9 9 10 9 9 10 8 10 10 9",
        "GRCh38": "11 12 12 12 10 12 14 11 12 11 10 12 11 9 10 10 11 10 10 11 9 11 11 10",
    }
    expected = {f"NC_{i:06d}.{v}" for versions in reports.values() for i, v in enumerate(versions.split(), start=1)}
    assert {refseq for refseq, _ in HUMAN_ACCESSIONS.values()} == expected | {"NC_012920.1"}
    for (name, _), (refseq, genbank) in HUMAN_ACCESSIONS.items():
        number = {"X": 23, "Y": 24, "MT": None}.get(name) if not name.isdigit() else int(name)
        if number:
            assert refseq.startswith(f"NC_{number:06d}.")
            assert genbank.startswith(f"CM{662 + number:06d}.")
    # The lengths add up to the assemblies' published totals over chromosomes 1 to 22, X and Y.
    assert sum(_lengths("CM", ".1")) == 3_095_677_412
    assert sum(_lengths("CM", ".2")) == 3_088_269_832


def _lengths(start: str, end: str) -> list[int]:
    return [
        length
        for (_, length), (_, genbank) in HUMAN_ACCESSIONS.items()
        if genbank.startswith(start) and genbank.endswith(end)
    ]


def test_a_contigs_own_name_wins_and_doubtful_aliases_mean_nothing() -> None:
    resolver = names({"1": 10, "chr1": 20, "Chr2": 5, "CHR2": 6})
    assert (resolver.resolve("1"), resolver.resolve("chr1")) == ("1", "chr1")
    assert resolver.aliases("1") == ()
    with pytest.raises(ContigNotFoundError):
        resolver.resolve("2")


def test_users_aliases_come_before_rules() -> None:
    resolver = names({"1": 10, "2": 10}, {"chr1": "2", "first": "1"})
    assert (resolver.resolve("chr1"), resolver.resolve("first")) == ("2", "1")


@pytest.mark.parametrize(
    ("aliases", "message"),
    [({"x": "3"}, "alias 'x' is said to mean '3', which is no contig"), ({"1": "2"}, "'1' is a contig of its own")],
)
def test_impossible_aliases(aliases: dict[str, str], message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        names({"1": 10, "2": 10}, aliases)


def test_unknown_contigs_name_the_nearest() -> None:
    with pytest.raises(ContigNotFoundError, match=r"toy.fa has no contig 'chromosome_12'\. Nearest: chromosome_\d, "):
        names({"chromosome_1": 10, "chromosome_2": 10, "plasmid": 5}).resolve("chromosome_12")
    with pytest.raises(ContigNotFoundError, match=r"It holds a, b, c, d, e and 2 more\."):
        names(dict.fromkeys("abcdefg", 10)).resolve("ZZZZZZ")


def test_alias_file(tmp_path: Path) -> None:
    path = tmp_path / "aliases.tsv"
    path.write_text("# contig\taliases\n20\tchr20\tNC_000020.10\n\nMT\tmito \r\n")
    assert read_alias_file(path) == {"chr20": "20", "NC_000020.10": "20", "mito": "MT"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"20 chr20\n", "line 1: '20 chr20' has one column"),
        (b"20\tx\n21\tx\n", "line 2: 'x' means '20' already"),
        (b"\xff\xfe\n", "Cannot read alias file"),
    ],
)
def test_bad_alias_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "aliases.tsv"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        read_alias_file(path)


def test_missing_alias_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No alias file at"):
        read_alias_file(tmp_path / "no.tsv")

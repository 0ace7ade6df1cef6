"""FASTA files against pysam and samtools, and every way in which a FASTA file can be bad."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysam
import pytest
from Bio.Seq import Seq
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ContigNotFoundError, InputFileError, IntervalError, UsageError
from genossm.genome.fasta_index import index_for
from genossm.genome.raw import END_BLOCK, packing_of
from genossm.sequence import Interval, NucleotideTokenizer
from genossm.testing import toy_genome, write_fasta
from genossm.testing.strategies import dna, genomes, intervals

REGION = intervals({"20": 4_000_000})


@given(interval=REGION)
@settings(max_examples=30)
def test_coordinates_are_pysams_on_real_sequence(
    interval: Interval, human_fasta: Path, human_reference: pysam.FastaFile
) -> None:
    interval = Interval("20", interval.start, min(interval.end, interval.start + 5000), interval.strand)
    expected = human_reference.fetch("20", interval.start, interval.end)
    if interval.strand == "-":
        expected = str(Seq(expected).reverse_complement())
    with genossm.genome.open(human_fasta) as genome:
        assert genome.fetch(interval) == expected.encode()
        tokens = genome.encode(interval, NucleotideTokenizer())
    assert tokens.tolist() == NucleotideTokenizer().encode(expected).tolist()


def test_digest_is_that_of_samtools_dict(human_fasta: Path) -> None:
    printed = pysam.dict(str(human_fasta))
    with genossm.genome.open(human_fasta) as genome:
        assert f"M5:{genome.digest('20')}" in printed.split()
        assert f"LN:{genome.length('20')}" in printed.split()


@given(
    genome=genomes(), line_length=st.integers(1, 90), line_end=st.sampled_from([b"\n", b"\r\n"]), bgzip=st.booleans()
)
def test_any_shape_of_file_reads_the_same(
    genome: dict[str, bytes], line_length: int, line_end: bytes, bgzip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fasta")
    path = write_fasta(folder / "x.fa", genome, line_length=line_length, line_end=line_end, bgzip=bgzip)
    with genossm.genome.open(path) as opened:
        assert opened.contigs == tuple(genome)
        assert opened.lengths == {name: len(sequence) for name, sequence in genome.items()}
        for name, sequence in genome.items():
            whole = Interval(name, 0, len(sequence))
            assert opened.fetch(whole, uppercase=False) == sequence
            assert opened.fetch(whole) == sequence.upper()
    assert [path.name for path in folder.iterdir()] == ["x.fa"]


@pytest.mark.parametrize("bgzip", [False, True])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_our_index_is_samtools_index(tmp_path: Path, bgzip: bool, line_end: bytes) -> None:
    contigs = toy_genome(length=300_000)
    path = write_fasta(tmp_path / "x.fa", contigs, line_end=line_end, bgzip=bgzip)
    ours = index_for(path, packing_of(path))
    pysam.faidx(str(path))
    assert ours.fai.read_bytes() == Path(f"{path}.fai").read_bytes()
    if bgzip:
        assert ours.gzi is not None
        assert ours.gzi.read_bytes() == Path(f"{path}.gzi").read_bytes()


def test_an_index_beside_the_file_is_used_unless_it_is_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENOSSM_CACHE", str(tmp_path / "cache"))
    path = write_fasta(tmp_path / "x.fa", {"a": b"ACGT", "b": b"GGCC"})
    pysam.faidx(str(path))
    assert genossm.genome.open(path).fetch(Interval("b", 0, 4)) == b"GGCC"
    assert not (tmp_path / "cache").exists()
    write_fasta(path, {"longer": b"ACGTACGT", "b": b"TTTT"})
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert genossm.genome.open(path).fetch(Interval("b", 0, 4)) == b"TTTT"
    assert (tmp_path / "cache").exists()


def test_a_changed_file_is_not_read_with_an_old_cached_index(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "x.fa", {"a": b"ACGT", "b": b"GGCC"})
    assert genossm.genome.open(path).fetch(Interval("b", 0, 4)) == b"GGCC"
    write_fasta(path, {"b": b"TTTT"})
    assert genossm.genome.open(path).contigs == ("b",)


def test_without_a_writable_cache_the_index_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file, so no folder can be made in it")
    monkeypatch.setenv("GENOSSM_CACHE", str(blocked / "cache"))
    path = write_fasta(tmp_path / "x.fa.gz", {"a": b"ACGT", "b": b"GGCC"}, bgzip=True)
    with genossm.genome.open(path) as genome:
        assert genome.fetch(Interval("b", 1, 4)) == b"GCC"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.fa.gz"]


def text(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(b">a\nACGT\n"))


def bgzipped_but(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_fasta(path, toy_genome(length=200_000), bgzip=True)
        path.write_bytes(change(path.read_bytes()))

    return write


def swap_a_byte(content: bytes) -> bytes:
    return content[:5000] + bytes([content[5000] ^ 255]) + content[5001:]


BAD_FILES = {
    "missing": (lambda _: None, "No file at .*x.fa. Check the path"),
    "directory": (lambda path: path.mkdir(), "is no whole genome store"),
    "empty": (text(b""), "is empty; wanted a FASTA file"),
    "not FASTA": (text(b"##fileformat=VCFv4.2\n"), "is no FASTA file: it starts with '##fileformat=VCFv4.2'"),
    "FASTQ": (text(b"@read\nACGT\n+\nIIII\n"), "is no FASTA file: it starts with '@read'"),
    "binary": (text(bytes(range(200, 256)) * 9), "is no FASTA file: it starts with"),
    "blank first": (text(b"\n>a\nACGT\n"), "is no FASTA file: it starts with ''"),
    "twice": (text(b">a\nACGT\n>b\nAC\n>a x\nAC\n"), "contig 'a' stands there twice"),
    "no name": (text(b">\nACGT\n"), "has no name after '>'"),
    "space before name": (text(b"> a\nACGT\n"), "has no name after '>'"),
    "no sequence": (text(b">a\n>b\nACGT\n"), "contig 'a' has no sequence"),
    "last without sequence": (text(b">a\nACGT\n>b"), "contig 'b' has no sequence"),
    "blank sequence": (text(b">a\n\n\n>b\nACGT\n"), "contig 'a' has no sequence"),
    "uneven": (text(b">a\nACGT\nACGTA\nAC\n"), "lines of contig 'a' are of uneven length.*genossm genome build"),
    "blank line within": (text(b">a\nACGT\n\nACGT\n"), "lines of contig 'a' are of uneven length"),
    "mixed line ends": (text(b">a\nACGT\r\nACGT\nAC\n"), "lines of contig 'a' are of uneven length"),
    "protein": (text(b">p\nMKVLAAGE\n"), r"contig 'p' has 'L' at position 4, which is no DNA letter .*protein"),
    "RNA": (text(b">r\nACGU\n"), "contig 'r' has 'U' at position 4"),
    "gap": (text(b">a\nAC-T\n"), "contig 'a' has '-' at position 3"),
    "gzip": (gzipped, "packed with gzip.*bgzip.*genossm genome build"),
    "truncated bgzip": (bgzipped_but(lambda content: content[: len(content) // 2]), "is truncated"),
    "no end block": (bgzipped_but(lambda content: content[: -len(END_BLOCK)]), "is truncated"),
    "damaged bgzip": (bgzipped_but(swap_a_byte), "is damaged"),
}


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_bad_files_are_one_clear_error(tmp_path: Path, name: str) -> None:
    make, message = BAD_FILES[name]
    path = tmp_path / "x.fa"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputFileError, match=message) as caught:
        genossm.genome.open(path)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_letters_are_checked_when_an_index_lets_a_file_through(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "x.fa", {"p": b"ACGTMKLV"})
    pysam.faidx(str(path))
    with genossm.genome.open(path) as genome:
        assert genome.fetch(Interval("p", 0, 4)) == b"ACGT"
        with pytest.raises(InputFileError, match="contig 'p' has 'L' at position 7"):
            genome.fetch(Interval("p", 2, 8, "-"))


def test_damage_behind_a_trusted_index_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "x.fa.gz", {"a": toy_genome(length=400_000)["chr1"][40_000:]}, bgzip=True)
    pysam.faidx(str(path))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\0" * 2000 + content[middle + 2000 :])
    os.utime(path, (1, 1))
    with genossm.genome.open(path) as genome, pytest.raises(InputFileError, match=r"cannot read|gives|no DNA letter"):
        genome.fetch(Interval("a", 0, genome.length("a")))


@pytest.mark.parametrize(
    ("interval", "error", "message"),
    [
        (
            Interval("20", 3_999_999, 4_000_001),
            IntervalError,
            "20:4,000,000-4,000,001 leaves contig 20 .* 4,000,000 bases",
        ),
        (Interval("20", 5_000_000, 5_000_001), IntervalError, "leaves contig 20"),
        (Interval("21", 0, 1), ContigNotFoundError, "chr20_1-4Mb.fa.gz has no contig '21'"),
    ],
)
def test_reading_outside_is_refused(
    human_fasta: Path, interval: Interval, error: type[Exception], message: str
) -> None:
    with genossm.genome.open(human_fasta) as genome, pytest.raises(error, match=message):
        genome.fetch(interval)


def test_a_closed_genome_says_so(human_fasta: Path) -> None:
    genome = genossm.genome.open(human_fasta)
    genome.close()
    with pytest.raises(InputFileError, match="was closed"):
        genome.fetch(Interval("20", 0, 1))


@given(sequence=dna(1, 300, letters="ACGTNacgtn"))
def test_runs_are_where_the_letters_are(sequence: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_fasta(tmp_path_factory.mktemp("runs") / "x.fa", {"a": sequence.encode()})
    with genossm.genome.open(path) as genome:
        for runs, wanted in ((genome.n_runs("a"), "Nn"), (genome.soft_mask("a"), "acgtn")):
            rebuilt = np.zeros(len(sequence), dtype=bool)
            for start, end in runs:
                rebuilt[start:end] = True
            assert rebuilt.tolist() == [letter in wanted for letter in sequence]
            # Runs are the longest ones: they never touch.
            assert (runs[1:, 0] > runs[:-1, 1]).all()


def test_a_region_stands_for_its_interval(human_fasta: Path) -> None:
    with genossm.genome.open(human_fasta) as genome:
        assert genome.fetch("20:5,001-5,010(-)") == genome.fetch(Interval("20", 5_000, 5_010, "-"))
        with pytest.raises(IntervalError, match="has one number"):
            genome.fetch("20:5001")
        with pytest.raises(UsageError, match="is no interval; wanted an Interval, or a region"):
            genome.fetch(("20", 5_000, 5_010))  # type: ignore[arg-type]

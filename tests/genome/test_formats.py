"""2bit, GenBank and EMBL files against a FASTA file of the same sequence, and every way in which they can be bad."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pysam
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ContigNotFoundError, InputFileError, IntervalError, TokenizerError
from genossm.genome import build
from genossm.genome.formats import format_of
from genossm.sequence import Interval, KmerTokenizer, NucleotideTokenizer
from genossm.testing import random_sequence, toy_genome, write_fasta
from genossm.testing.strategies import CONTIG_NAMES, dna

Contigs = Mapping[str, bytes]
FLAT = {"genbank": "gb", "embl": "embl"}
RECORDS = {"NC_000001.2": random_sequence(700, seed=1), "AB1234.1": random_sequence(61, seed=2) + b"NNNNRYK"}


def runs_of(letters: bytes, members: bytes) -> list[tuple[int, int]]:
    inside = [letter in members for letter in letters]
    edges = [i for i, (a, b) in enumerate(zip([False, *inside], [*inside, False])) if a != b]
    return list(zip(edges[::2], edges[1::2]))


def write_2bit(path: Path, contigs: Contigs, *, order: str = "<") -> Path:
    """As the specification at genome.ucsc.edu/FAQ/FAQformat.html#format7 says."""
    bodies = []
    for letters in contigs.values():
        body = struct.pack(f"{order}I", len(letters))
        for members in (b"Nn", b"acgtn"):
            runs = runs_of(letters, members)
            body += struct.pack(f"{order}I", len(runs))
            body += b"".join(struct.pack(f"{order}I", start) for start, _ in runs)
            body += b"".join(struct.pack(f"{order}I", end - start) for start, end in runs)
        codes = np.array([b"TCAGN".index(letter) % 4 for letter in letters.upper()] + [0] * (-len(letters) % 4))
        packed = (codes.reshape(-1, 4) * [64, 16, 4, 1]).sum(axis=1).astype(np.uint8)
        bodies.append(body + struct.pack(f"{order}I", 0) + packed.tobytes())
    offset = 16 + sum(1 + len(name) + 4 for name in contigs)
    content = struct.pack(f"{order}4I", 0x1A412743, 0, len(contigs), 0)
    for name, body in zip(contigs, bodies):
        content += bytes([len(name)]) + name.encode() + struct.pack(f"{order}I", offset)
        offset += len(body)
    path.write_bytes(content + b"".join(bodies))
    return path


def write_flat(path: Path, contigs: Contigs, kind: str, *, circular: frozenset[str] = frozenset()) -> Path:
    records = [
        SeqRecord(
            Seq(letters),
            id=name,
            name=f"LOCUS{number}",
            annotations={"molecule_type": "DNA", "topology": "circular" if name in circular else "linear"},
        )
        for number, (name, letters) in enumerate(contigs.items())
    ]
    with open(path, "w") as handle:
        SeqIO.write(records, handle, FLAT[kind])
    return path


def as_2bit(path: Path, contigs: Contigs) -> Path:
    return write_2bit(path, contigs)


def as_genbank(path: Path, contigs: Contigs) -> Path:
    return write_flat(path, contigs, "genbank")


def as_embl(path: Path, contigs: Contigs) -> Path:
    return write_flat(path, contigs, "embl")


WRITERS: dict[str, Callable[[Path, Contigs], Path]] = {"2bit": as_2bit, "genbank": as_genbank, "embl": as_embl}
FORMATS = pytest.mark.parametrize("kind", WRITERS)
UNAMBIGUOUS = {name: letters.upper().replace(b"R", b"A") for name, letters in toy_genome().items()}


def assert_same(one: genossm.genome.Genome, other: genossm.genome.Genome, *, uppercase: bool) -> None:
    assert one.lengths == other.lengths
    assert one.reference_digest == other.reference_digest
    for contig, length in one.lengths.items():
        assert one.digest(contig) == other.digest(contig)
        assert np.array_equal(one.n_runs(contig), other.n_runs(contig))
        if not uppercase:
            assert np.array_equal(one.soft_mask(contig), other.soft_mask(contig))
        third = length // 3
        for interval in (Interval(contig, 0, length), Interval(contig, third, length - third, "-")):
            assert one.fetch(interval, uppercase=uppercase) == other.fetch(interval, uppercase=uppercase)


@given(
    contigs=st.dictionaries(CONTIG_NAMES, dna(1, 200, letters="ACGTNacgtn").map(str.encode), min_size=1, max_size=3),
    order=st.sampled_from("<>"),
)
def test_2bit_is_the_fasta_of_the_same_sequence(
    contigs: dict[str, bytes], order: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("2bit")
    path = write_2bit(folder / "x", contigs, order=order)
    with genossm.genome.open(path) as genome:
        assert genome.kind == "2bit"
        for name, letters in contigs.items():
            assert genome.fetch(Interval(name, 0, len(letters)), uppercase=False) == letters
            assert [tuple(run) for run in genome.n_runs(name).tolist()] == runs_of(letters, b"Nn")
            assert [tuple(run) for run in genome.soft_mask(name).tolist()] == runs_of(letters, b"acgtn")


@FORMATS
def test_any_format_reads_as_fasta_and_so_does_its_store(kind: str, tmp_path: Path) -> None:
    mask = kind == "2bit"
    contigs = {name: letters.replace(b"R", b"A") for name, letters in toy_genome().items()}
    contigs = contigs if mask else {f"{name}.1": letters.upper() for name, letters in contigs.items()}
    fasta = genossm.genome.open(write_fasta(tmp_path / "x.fa", contigs))
    path = WRITERS[kind](tmp_path / "x.dat", contigs)
    with genossm.genome.open(path) as genome:
        assert genome.kind == kind == format_of(path)
        assert_same(genome, fasta, uppercase=not mask)
    summary = build(path, tmp_path / "x.zarr", chunk_length=700)
    assert summary.bases == sum(map(len, contigs.values()))
    assert summary.reference_digest == fasta.reference_digest
    with genossm.genome.open(summary.path) as store:
        assert_same(store, fasta, uppercase=not mask)


@FORMATS
def test_tokens_processes_and_threads(kind: str, tmp_path: Path) -> None:
    genome = genossm.genome.open(WRITERS[kind](tmp_path / "x", UNAMBIGUOUS))
    contig = genome.resolve("chr2")
    letters = UNAMBIGUOUS["chr2"]
    intervals = [Interval(contig, start, start + 300) for start in range(0, 2000, 10)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(genome.fetch, intervals))
    assert found == [letters[i.start : i.end] for i in intervals]
    copy = pickle.loads(pickle.dumps(genome))
    for tokenizer in (NucleotideTokenizer(), KmerTokenizer(6), KmerTokenizer(3, overlapping=False)):
        assert np.array_equal(copy.encode(intervals[3], tokenizer), tokenizer.encode(letters[30:330]))
        turned = Interval(contig, 30, 330, "-")
        assert np.array_equal(
            copy.encode(turned, tokenizer), tokenizer.reverse_complement(copy.encode(intervals[3], tokenizer))
        )
    with pytest.raises(IntervalError, match="leaves contig"):
        genome.fetch(Interval(contig, 2400, 2501))
    with pytest.raises(TokenizerError, match="KmerTokenizer cannot write into an array"):
        genome.encode(intervals[0], KmerTokenizer(6), out=np.empty(300, dtype=np.uint8))
    with pytest.raises(TokenizerError, match="300 bases is not divisible by k = 7: 6 would be left over"):
        genome.encode(intervals[0], KmerTokenizer(7, overlapping=False))
    genome.close()
    with pytest.raises(InputFileError, match="was closed"):
        genome.fetch(intervals[0])


@pytest.mark.parametrize("kind", FLAT)
def test_flat_files_keep_topology_and_names(kind: str, tmp_path: Path) -> None:
    ring = "NC_000001.2"
    path = write_flat(tmp_path / "x.txt", RECORDS, kind, circular=frozenset({ring}))
    for genome in (genossm.genome.open(path), genossm.genome.open(build(path, tmp_path / "x.zarr").path)):
        assert genome.contigs == tuple(RECORDS)
        assert [genome.is_circular(contig) for contig in genome.contigs] == [True, False]
        for name in (ring, "NC_000001", *(["LOCUS0"] if kind == "genbank" else [])):
            assert genome.resolve(name) == ring
        letters = RECORDS[ring]
        assert genome.fetch(Interval("NC_000001", 650, 750)) == letters[650:] + letters[:50]
        with pytest.raises(IntervalError, match=r"leaves contig AB1234\.1"):
            genome.fetch(Interval("AB1234", 60, 70))
        genome.close()


def test_what_the_user_says_is_added_to_what_the_file_says(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "x.gb", RECORDS, "genbank", circular=frozenset({"NC_000001.2"}))
    store = build(path, tmp_path / "x.zarr", aliases={"plasmid": "AB1234.1"}, circular=["AB1234"]).path
    with genossm.genome.open(store) as genome:
        assert genome.is_circular("plasmid")
        assert genome.is_circular("NC_000001")


def test_an_alias_of_two_records_means_neither(tmp_path: Path) -> None:
    contigs = {"AB1.1": b"ACGT", "AB1.2": b"ACGG"}
    with genossm.genome.open(write_flat(tmp_path / "x.gb", contigs, "genbank")) as genome:
        assert genome.contigs == ("AB1.1", "AB1.2")
        assert genome.resolve("LOCUS1") == "AB1.2"
        with pytest.raises(ContigNotFoundError, match="no contig 'AB1'"):
            genome.resolve("AB1")


@pytest.mark.parametrize("packing", ["gzip", "bgzip"])
@pytest.mark.parametrize("kind", FLAT)
def test_packed_flat_files(kind: str, packing: str, tmp_path: Path) -> None:
    content = write_flat(tmp_path / "x.txt", RECORDS, kind).read_bytes()
    path = tmp_path / "x.gz"
    if packing == "gzip":
        path.write_bytes(gzip.compress(content))
    else:
        with pysam.BGZFile(str(path), "wb", index=None) as handle:
            handle.write(content)
    with genossm.genome.open(path) as genome:
        assert genome.kind == kind
        assert {name: genome.fetch(Interval(name, 0, len(seq))) for name, seq in RECORDS.items()} == RECORDS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputFileError, match="truncated"):
        genossm.genome.open(path)


def test_a_genbank_release_file_begins_with_lines_of_its_own(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "x.gb", RECORDS, "genbank")
    path.write_bytes(b"GBBCT1.SEQ          Genetic Sequence Data Bank\n\n   2 loci\n\n" + path.read_bytes())
    assert genossm.genome.open(path).contigs == tuple(RECORDS)


def changed(kind: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(change(WRITERS[kind](path, RECORDS if kind != "2bit" else UNAMBIGUOUS).read_bytes()))

    return write


def without_sequence(content: bytes) -> bytes:
    start = content.index(b"ORIGIN")
    return content[:start] + b"CONTIG      join(AB0001.1:1..700)\n" + content[content.index(b"//") :]


def twice(content: bytes) -> bytes:
    return content * 2


def contigs_2bit(contigs: Contigs) -> Callable[[Path], None]:
    return lambda path: write_2bit(path, contigs) and None


BAD_FILES = {
    "2bit without last byte": (changed("2bit", lambda content: content[:-1]), "cannot read .*cut off or damaged"),
    "2bit half": (changed("2bit", lambda content: content[: len(content) // 2]), "cannot read|index .*cannot be read"),
    "2bit index cut off": (changed("2bit", lambda content: content[:24]), "index of this 2bit file cannot be read"),
    "2bit header cut off": (changed("2bit", lambda content: content[:4]), "says 0 contigs, its index names 0"),
    "2bit of version 1": (changed("2bit", lambda content: content[:4] + b"\1" + content[5:]), "version-1 .*twoBitToFa"),
    "2bit with absurd counts": (
        changed("2bit", lambda content: content.replace(struct.pack("<I", 5000), b"\xff" * 8, 1)),
        "cannot be read|cannot read",
    ),
    "2bit name twice": (
        changed("2bit", lambda content: content.replace(b"chr2", b"chr1", 1)),
        "says 3 contigs, its index names 2.*two contigs have one name",
    ),
    "2bit without contigs": (contigs_2bit({}), "says 0 contigs"),
    "2bit empty contig": (contigs_2bit({"a": b"ACGT", "b": b""}), "contig 'b' has no sequence"),
    "GenBank twice": (changed("genbank", twice), "record 'NC_000001.2' stands there twice"),
    "EMBL twice": (changed("embl", twice), "record 'NC_000001.2' stands there twice"),
    "GenBank cut off in sequence": (changed("genbank", lambda content: content[:-40]), "cut off or damaged"),
    "EMBL cut off in sequence": (changed("embl", lambda content: content[:-40]), "cut off or damaged"),
    "GenBank cut off in header": (changed("genbank", lambda content: content[:150]), "cut off or damaged"),
    "EMBL cut off in header": (changed("embl", lambda content: content[:60]), "cut off or damaged"),
    "GenBank lacks a line": (
        changed("genbank", lambda content: content.replace(content[content.index(b"   61 ") :][:80], b"", 1)),
        "Expected sequence length 700|cannot be read",
    ),
    "GenBank without sequence": (changed("genbank", without_sequence), "record 'NC_000001.2' has no sequence"),
    "GenBank of a protein": (
        changed("genbank", lambda content: content.replace(b"        1 ", b"        1 l", 1)),
        "contig 'NC_000001.2' has 'L' at position 1|Expected sequence length",
    ),
    "neither": (lambda path: path.write_bytes(b"LOCUST\nID\n") and None, "is no FASTA file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(case: str, tmp_path: Path) -> None:
    write, message = BAD_FILES[case]
    path = tmp_path / "x.dat"
    write(path)
    with pytest.raises(InputFileError, match=message) as caught:
        genossm.genome.open(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputFileError, match=message):
        build(path, tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


def test_damage_in_a_2bit_file_that_opens_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = write_2bit(tmp_path / "x.2bit", UNAMBIGUOUS)
    genome = genossm.genome.open(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputFileError, match=r"cannot read chrM:1-500 .*cut off or damaged"):
        genome.fetch(Interval("chrM", 0, 500))
    genome.close()


def test_readers_are_imported_when_they_are_needed(human_fasta: Path) -> None:
    code = (
        "import sys, genossm.sequence, genossm.genome as g;"
        f"g.open({str(human_fasta)!r});"
        "print([name for name in ('Bio', 'tokenizers', 'zarr', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_command_builds_and_describes_a_genbank_file(tmp_path: Path) -> None:
    write_flat(tmp_path / "x.gb", RECORDS, "genbank", circular=frozenset({"NC_000001.2"}))
    for arguments in (["build", "x.gb", "-o", "x.zarr"], ["info", "x.gb"], ["info", "x.zarr"]):
        command = [Path(sys.executable).parent / "genossm", "genome", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if arguments[0] == "info":
            rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
            assert [row[:3] for row in rows] == [["NC_000001.2", "700", "circular"], ["AB1234.1", "68", "linear"]]
            assert "LOCUS0" in rows[0][5].split(",")

"""Building a store through the installed command: one line out, one clear line on error, nothing half-written."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pysam
import pytest

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError, UsageError
from genossm.genome import build
from genossm.genome.raw import END_BLOCK
from genossm.sequence import Interval
from genossm.testing import random_sequence, toy_genome, write_fasta

COMMAND = Path(sys.executable).parent / "genossm"


def genossm_command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_build_prints_one_line_and_the_store_opens(tmp_path: Path) -> None:
    write_fasta(tmp_path / "x.fa.gz", toy_genome(), bgzip=True)
    (tmp_path / "aliases.tsv").write_text("chr1\tone\n")
    done = genossm_command(
        *("genome", "build", "x.fa.gz", "-o", "x.zarr", "--alias-file", "aliases.tsv", "--circular", "chrM"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    path, contigs, bases, seconds = done.stdout.rstrip("\n").split("\t")
    assert (path, contigs, bases) == ("x.zarr", "3 contigs", "8000 bases")
    assert float(seconds.removesuffix(" s")) < 60
    with genossm.genome.open(tmp_path / "x.zarr") as genome:
        assert genome.resolve("one") == "chr1"
        assert genome.is_circular("chrM")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aliases.tsv", "x.fa.gz", "x.zarr"]


@pytest.mark.parametrize("kind", ["store", "fasta"])
def test_info_is_a_table_equal_to_samtools_dict(tmp_path: Path, kind: str) -> None:
    contigs = toy_genome()
    fasta = write_fasta(tmp_path / "x.fa", contigs)
    expected = [line.split("\t") for line in pysam.dict(str(fasta)).splitlines() if line.startswith("@SQ")]
    if kind == "store":
        build(fasta, tmp_path / "x.zarr", circular=["chrM"])
    done = genossm_command("genome", "info", "x.zarr" if kind == "store" else "x.fa", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["contig", "length", "topology", "m5", "n_bases", "aliases"]
    assert [(row[0], row[1], row[3]) for row in rows] == [(f[1][3:], f[2][3:], f[3][3:]) for f in expected]
    assert [row[4] for row in rows] == ["500", "0", "0"]
    assert [row[2] for row in rows] == ["linear", "linear", "circular" if kind == "store" else "linear"]
    assert [row[5] for row in rows] == ["1", "2", "M,MT,chrMT"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.zarr", "No file at no.zarr"),
        (".", "is no whole genome store"),
        ("half.fa.gz", "is truncated"),
        ("newer.zarr", "written by a newer genossm (store schema 99"),
    ],
)
def test_info_of_bad_input_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    fasta = write_fasta(tmp_path / "x.fa.gz", toy_genome(), bgzip=True)
    (tmp_path / "half.fa.gz").write_bytes(fasta.read_bytes()[:-10])
    path = build(fasta, tmp_path / "newer.zarr").path / "zarr.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    done = genossm_command("genome", "info", name, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert message in done.stderr


def test_build_reads_what_random_access_cannot(tmp_path: Path) -> None:
    packed, uneven = tmp_path / "x.fa.gz", tmp_path / "y.fa"
    packed.write_bytes(gzip.compress(b">a some words\nACGT\nAC\n>b\nGG"))
    uneven.write_bytes(b">a\r\nAC\n\nGTA\r\nC\n>b\nG\nG\n\n")
    digests = {build(path, path.with_suffix(".zarr")).reference_digest for path in (packed, uneven)}
    assert len(digests) == 1
    with genossm.genome.open(tmp_path / "y.zarr") as genome:
        assert genome.fetch(Interval("a", 0, 6)) == b"ACGTAC"


def test_contigs_that_span_many_pieces_of_the_file(tmp_path: Path) -> None:
    contigs = {f"c{i}": random_sequence(3_000_000 + i, seed=i) for i in range(3)}
    for name, options in {"plain": {}, "packed": {"bgzip": True}}.items():
        fasta = write_fasta(tmp_path / f"{name}.fa", contigs, line_length=61, **options)
        with (
            genossm.genome.open(build(fasta, tmp_path / f"{name}.zarr").path) as store,
            genossm.genome.open(fasta) as file,
        ):
            for contig, sequence in contigs.items():
                whole = Interval(contig, 0, len(sequence))
                assert store.fetch(whole) == sequence
                assert file.fetch(whole) == sequence


def test_progress_counts_every_contig(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    fasta = write_fasta(tmp_path / "x.fa", toy_genome())
    build(fasta, tmp_path / "x.zarr", progress=lambda contig, bases: seen.append((contig, bases)))
    assert seen == [("chr1", 5000), ("chr2", 7500), ("chrM", 8000)]


def test_the_store_says_where_it_came_from(tmp_path: Path) -> None:
    write_fasta(tmp_path / "my x.fa", toy_genome())
    genossm_command("genome", "build", "my x.fa", "-o", "x.zarr", cwd=tmp_path)
    written = json.loads((tmp_path / "x.zarr" / "zarr.json").read_text())["attributes"]["genossm"]
    assert written["schema"] == 1
    assert written["source"] == "my x.fa"
    assert written["provenance"]["command"] == "genossm genome build 'my x.fa' -o x.zarr"
    assert written["provenance"]["reference_digest"] == written["reference_digest"]
    assert str(tmp_path) not in json.dumps(written)


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], int, str]]:
    good = write_fasta(folder / "good.fa", toy_genome())
    packed = write_fasta(folder / "good.fa.gz", toy_genome(), bgzip=True).read_bytes()
    files = {
        "empty.fa": b"",
        "vcf.fa": b"##fileformat=VCFv4.2\n",
        "twice.fa": b">a\nAC\n>a\nGT\n",
        "protein.fa": b">a\nACGT\n>p\nMKVL\n",
        "half.fa.gz": packed[: len(packed) // 2],
        "endless.fa.gz": packed[: -len(END_BLOCK)],
        "half_gzip.fa.gz": gzip.compress(good.read_bytes())[:-20],
        "aliases.tsv": b"chr7\tseven\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "old.zarr").mkdir()
    (folder / "old.zarr" / "mine").write_text("kept")
    output = ["-o", "new.zarr"]
    return {
        "missing": (["no.fa", *output], 1, "No file at no.fa"),
        "directory": ([".", *output], 1, "is a directory"),
        "empty": (["empty.fa", *output], 1, "is empty"),
        "not FASTA": (["vcf.fa", *output], 1, "is no FASTA file"),
        "twice": (["twice.fa", *output], 1, "contig 'a' stands there twice"),
        "protein": (["protein.fa", *output], 1, "contig 'p' has 'L' at position 4"),
        "truncated": (["half.fa.gz", *output], 1, "is truncated"),
        "no end block": (["endless.fa.gz", *output], 1, "is truncated"),
        "truncated gzip": (["half_gzip.fa.gz", *output], 1, "is truncated"),
        "no alias file": (["good.fa", *output, "--alias-file", "no.tsv"], 1, "No alias file at no.tsv"),
        "bad alias": (["good.fa", *output, "--alias-file", "aliases.tsv"], 1, "'chr7', which is no contig"),
        "bad circular": (["good.fa", *output, "--circular", "chr9"], 1, "no contig 'chr9'"),
        "taken": (["good.fa", "-o", "old.zarr"], 1, "old.zarr exists already"),
        "not ours": (["good.fa", "-o", "old.zarr", "--force"], 1, "holds no zarr.json"),
        "no folder": (["good.fa", "-o", "no/new.zarr"], 1, "the folder no does not exist"),
        "name": (["good.fa", "-o", "new"], 2, "ends in .zarr, got 'new'"),
        "chunk": (["good.fa", *output, "--chunk-length", "0"], 1, "chunk_length: got 0"),
        "codec": (["good.fa", *output, "--codec", "gzip"], 2, "Invalid value for '--codec'"),
        "no output": (["good.fa"], 2, "Missing option '-o'"),
    }


CASES = [
    "missing",
    "directory",
    "empty",
    "not FASTA",
    "twice",
    "protein",
    "truncated",
    "no end block",
    "truncated gzip",
    "no alias file",
    "bad alias",
    "bad circular",
    "taken",
    "not ours",
    "no folder",
    "name",
    "chunk",
    "codec",
    "no output",
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    cases = bad_inputs(tmp_path)
    assert set(cases) == set(CASES)
    arguments, code, message = cases[case]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = genossm_command("genome", "build", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    errors = done.stderr.splitlines()
    assert len(errors) == 1 or errors[0].startswith("Usage: "), done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new.zarr").exists()


def test_bad_options_in_python(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "x.fa", toy_genome())
    with pytest.raises(UsageError, match=r"ends in \.zarr"):
        build(fasta, tmp_path / "x")
    with pytest.raises(ConfigError, match="codec: got 'lzma', wanted one of blosc-lz4"):
        build(fasta, tmp_path / "x.zarr", codec="lzma")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shard_length: got 500, wanted a multiple of chunk_length, 300"):
        build(fasta, tmp_path / "x.zarr", chunk_length=300, shard_length=500)


def test_force_replaces_a_store(tmp_path: Path) -> None:
    first, second = write_fasta(tmp_path / "a.fa", {"a": b"ACGT"}), write_fasta(tmp_path / "b.fa", {"b": b"GGGG"})
    build(first, tmp_path / "x.zarr")
    build(second, tmp_path / "x.zarr", force=True)
    assert genossm.genome.open(tmp_path / "x.zarr").contigs == ("b",)
    with pytest.raises(InputFileError, match="No file at"):
        build(tmp_path / "no.fa", tmp_path / "x.zarr", force=True)
    assert genossm.genome.open(tmp_path / "x.zarr").contigs == ("b",)


SLOW_BUILD = """
import signal, sys, time
from pathlib import Path
from genossm.genome import build
# Whoever started this may have told it to ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
def progress(contig, bases):
    print(contig, flush=True)
    while not Path("gate").exists(): time.sleep(0.001)
build(Path(sys.argv[1]), Path("x.zarr"), progress=progress)
"""


def start_build(folder: Path, fasta: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, fasta], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_killed_half_way_leaves_nothing_that_opens(tmp_path: Path, how: signal.Signals) -> None:
    write_fasta(tmp_path / "x.fa", toy_genome())
    process = start_build(tmp_path, "x.fa")
    process.send_signal(how)
    process.communicate(timeout=60)
    assert not (tmp_path / "x.zarr").exists()
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(left) == (1 if how == signal.SIGKILL else 0)
    for path in left:
        assert path.name.startswith(".tmp-")
        with pytest.raises(InputFileError, match="is no whole genome store"):
            genossm.genome.open(path)
    assert build(tmp_path / "x.fa", tmp_path / "x.zarr").contigs == 3


def test_of_two_builders_at_once_one_whole_store_stays(tmp_path: Path) -> None:
    write_fasta(tmp_path / "a.fa", {"a": b"ACGT" * 100})
    write_fasta(tmp_path / "b.fa", {"b": b"GGCA" * 100})
    builders = {name: start_build(tmp_path, f"{name}.fa") for name in "ab"}
    (tmp_path / "gate").touch()
    ended = {name: (process.communicate(timeout=60)[1], process.returncode) for name, process in builders.items()}
    winners = [name for name, (_, code) in ended.items() if code == 0]
    assert len(winners) == 1
    loser = "ab".replace(winners[0], "")
    assert "x.zarr exists already" in ended[loser][0]
    with genossm.genome.open(tmp_path / "x.zarr") as genome:
        assert genome.contigs == (winners[0],)
        assert len(genome.fetch(Interval(winners[0], 0, 400))) == 400
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp-")] == []


def test_help_is_quick(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert genossm_command("genome", "build", "--help", cwd=tmp_path).returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.0


def test_the_command_puts_several_chunks_into_a_file(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "x.fa", toy_genome())
    lengths = ["--chunk-length", "300", "--shard-length", "1200"]
    done = subprocess.run([COMMAND, "genome", "build", fasta, "-o", tmp_path / "x.zarr", *lengths], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "x.zarr/sequence/chr1/c").iterdir())) == 5
    with genossm.genome.open(tmp_path / "x.zarr") as store, genossm.genome.open(fasta) as file:
        assert store.reference_digest == file.reference_digest

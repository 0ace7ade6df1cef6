"""A store behind a URL is the store on the disk; what is missing there is an error, never N."""

from __future__ import annotations

import functools
import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.cli.genome import command
from genossm.core.errors import InputFileError, MissingDependencyError, UsageError
from genossm.genome import Genome, build
from genossm.genome.verify import verify
from genossm.sequence import Interval, NucleotideTokenizer
from genossm.testing import toy_genome, write_fasta

URL = "memory://bucket/x.zarr"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("remote")
    fasta = write_fasta(folder / "x.fa", toy_genome() | {"masked": b"ACGTNNacgtnnACGT" * 50})
    build(fasta, folder / "x.zarr", chunk_length=90, aliases={"one": "chr1"})
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "x.zarr"), "/bucket/x.zarr", recursive=True)
    yield folder / "x.zarr"
    memory.rm("/bucket", recursive=True)


@pytest.fixture(scope="module")
def both(local: Path) -> Iterator[tuple[Genome, Genome]]:
    with genossm.genome.open(local) as here, genossm.genome.open(URL) as there:
        yield here, there


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_window_is_the_same(both: tuple[Genome, Genome], data: st.DataObject) -> None:
    here, there = both
    contig = data.draw(st.sampled_from(here.contigs))
    start = data.draw(st.integers(0, here.length(contig) - 1))
    end = data.draw(st.integers(start + 1, here.length(contig)))
    interval = Interval(contig, start, end, data.draw(st.sampled_from("+-")))
    for uppercase in (True, False):
        assert there.fetch(interval, uppercase=uppercase) == here.fetch(interval, uppercase=uppercase)
    tokenizer = NucleotideTokenizer()
    assert there.encode(interval, tokenizer).tolist() == here.encode(interval, tokenizer).tolist()


def test_what_is_known_of_it_is_the_same(both: tuple[Genome, Genome]) -> None:
    here, there = both
    assert (there.contigs, there.lengths, there.name) == (here.contigs, here.lengths, "x.zarr")
    assert there.reference_digest == here.reference_digest
    assert there.resolve("one") == "chr1"
    for contig in here.contigs:
        assert there.n_runs(contig).tolist() == here.n_runs(contig).tolist()
        assert there.soft_mask(contig).tolist() == here.soft_mask(contig).tolist()
    again = pickle.loads(pickle.dumps(there))
    assert again.fetch(Interval("chr1", 600, 700)) == here.fetch(Interval("chr1", 600, 700))
    assert [one.problem for one in verify(URL)] == [None] * len(here.contigs)


@pytest.mark.usefixtures("local")
def test_a_long_window_asks_for_its_chunks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    memory = fsspec.filesystem("memory")
    real = memory.cat

    def counted(paths: list[str], **options: Any) -> Any:
        asked.append(sum("/c/" in path for path in paths))
        return real(paths, **options)

    monkeypatch.setattr(type(memory), "cat", lambda _, paths, **options: counted(paths, **options))
    with genossm.genome.open(URL) as there:
        there.fetch(Interval("chr1", 0, 4500))
    assert [chunks for chunks in asked if chunks] == [32, 18]


def test_a_missing_chunk_is_an_error(local: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(local), "/bucket/hole.zarr", recursive=True)
    memory.rm("/bucket/hole.zarr/sequence/chr1/c/3")
    with genossm.genome.open("memory://bucket/hole.zarr") as genome:
        assert len(genome.fetch(Interval("chr1", 0, 270))) == 270
        with pytest.raises(InputFileError, match="missing or damaged"):
            genome.fetch(Interval("chr1", 200, 400))
        with pytest.raises(InputFileError, match="missing or damaged"):
            genome.fetch(Interval("chr1", 300, 310))


def test_shards_are_read_in_pieces(tmp_path: Path) -> None:
    letters = toy_genome()["chr1"].upper()
    build(write_fasta(tmp_path / "x.fa", {"a": letters}), tmp_path / "x.zarr", chunk_length=300, shard_length=1200)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "x.zarr"), "/bucket/shards.zarr", recursive=True)
    with genossm.genome.open("memory://bucket/shards.zarr") as genome:
        assert genome.fetch(Interval("a", 250, 4900)) == letters[250:4900]
        assert genome.fetch(Interval("a", 1190, 1210)) == letters[1190:1210]
    memory.rm("/bucket/shards.zarr/sequence/a/c/2")
    with genossm.genome.open("memory://bucket/shards.zarr") as genome:
        assert genome.fetch(Interval("a", 0, 2400)) == letters[:2400]
        with pytest.raises(InputFileError, match=r"missing or damaged \(.*sequence/a/c/2\)"):
            genome.fetch(Interval("a", 2000, 3000))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_a_plain_web_server_will_do(local: Path) -> None:
    handler = functools.partial(Quiet, directory=str(local.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.zarr"
        with genossm.genome.open(url) as there, genossm.genome.open(local) as here:
            whole = Interval("masked", 0, here.length("masked"))
            assert there.fetch(whole, uppercase=False) == here.fetch(whole, uppercase=False)
        with pytest.raises(InputFileError, match="no whole genome store"):
            genossm.genome.open(url + "_not")
        server.shutdown()


class Failing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    def do_HEAD(self) -> None:
        self.send_error(500)

    def log_message(self, *_: object) -> None: ...


def test_a_server_that_fails_is_not_a_store_that_is_missing() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InputFileError, match=r"cannot be read \(.*500.*Check the URL"):
            genossm.genome.open(f"http://127.0.0.1:{server.server_port}/x.zarr")
        server.shutdown()


@pytest.mark.usefixtures("local")
def test_a_url_that_went_through_pathlib_is_the_same_url() -> None:
    """As it does in a training configuration."""
    with genossm.genome.open(Path(URL)) as genome:
        assert str(genome.path) == URL


def test_a_file_url_is_the_file(local: Path) -> None:
    for url in (f"file://{local}", Path(f"file://{local}")):
        with genossm.genome.open(url) as there:
            assert there.length("chr1") > 0


def test_the_commands_take_a_url(local: Path) -> None:
    table = CliRunner().invoke(command, ["info", URL])
    assert table.output == CliRunner().invoke(command, ["info", str(local)]).output
    assert CliRunner().invoke(command, ["verify", URL]).output.count("\tOK\n") == 4


def test_what_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no whole genome store"):
        genossm.genome.open("memory://bucket/none.zarr")
    with pytest.raises(InputFileError, match="Wanted a path, or a URL"):
        genossm.genome.open("nosuch://bucket/x.zarr")
    with pytest.raises(UsageError, match="built on this machine"):
        build(write_fasta(tmp_path / "x.fa", toy_genome()), Path("s3://bucket/x.zarr"))
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(MissingDependencyError, match=r"genossm\[remote\]"):
        genossm.genome.open(URL)

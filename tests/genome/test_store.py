"""The store gives what the FASTA file gives, at any chunking; and a damaged store gives an error."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import GzipCodec

import genossm.genome
from genossm.core.errors import AlphabetError, ContigNotFoundError, InputFileError, IntervalError
from genossm.genome import Genome, build
from genossm.genome.layout import array_path
from genossm.sequence import Interval, NucleotideTokenizer, left_align, reverse_complement
from genossm.sequence.variant import Variant
from genossm.testing import toy_genome, write_fasta
from genossm.testing.strategies import genomes, intervals

TOKENIZERS = (NucleotideTokenizer(), NucleotideTokenizer(uppercase=False))
CODECS = ("blosc-lz4", "blosc-zstd", "zstd", "none")


def same(first: Genome, second: Genome, interval: Interval) -> None:
    for uppercase in (True, False):
        letters = first.fetch(interval, uppercase=uppercase)
        assert second.fetch(interval, uppercase=uppercase) == letters
        assert second.fetch_array(interval, uppercase=uppercase).tobytes() == letters
        for tokenizer in TOKENIZERS:
            ids = second.encode(interval, tokenizer, uppercase=uppercase)
            assert ids.tolist() == tokenizer.encode(letters).tolist()
            assert first.encode(interval, tokenizer, uppercase=uppercase).tolist() == ids.tolist()


@given(contigs=genomes(), chunk_length=st.integers(1, 150), codec=st.sampled_from(CODECS), data=st.data())
@settings(max_examples=30)
def test_a_store_is_its_fasta(
    contigs: dict[str, bytes],
    chunk_length: int,
    codec: Any,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    fasta = write_fasta(folder / "x.fa", contigs)
    build(fasta, folder / "x.zarr", chunk_length=chunk_length, codec=codec)
    with genossm.genome.open(fasta) as file, genossm.genome.open(folder / "x.zarr") as store:
        assert store.contigs == file.contigs == tuple(contigs)
        assert store.lengths == file.lengths
        assert store.reference_digest == file.reference_digest
        for contig in contigs:
            assert store.digest(contig) == file.digest(contig)
            assert store.n_runs(contig).tolist() == file.n_runs(contig).tolist()
            assert store.soft_mask(contig).tolist() == file.soft_mask(contig).tolist()
            whole = Interval(contig, 0, len(contigs[contig]))
            assert store.fetch(whole, uppercase=False) == contigs[contig]
        for interval in data.draw(st.lists(intervals(file.lengths), min_size=1, max_size=5)):
            same(file, store, interval)


@given(interval=intervals({"20": 4_000_000}))
@settings(max_examples=25)
def test_a_store_of_real_sequence_is_its_fasta(interval: Interval, human_fasta: Path, human_store: Path) -> None:
    with genossm.genome.open(human_fasta) as file, genossm.genome.open(human_store) as store:
        expected = file.fetch(interval)
        assert store.fetch(interval) == expected
        assert np.array_equal(store.encode(interval, TOKENIZERS[0]), TOKENIZERS[0].encode(expected))


def test_digests_are_those_of_samtools_dict(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "x.fa", toy_genome())
    build(fasta, tmp_path / "x.zarr")
    fields = [line.split("\t") for line in pysam.dict(str(fasta)).splitlines() if line.startswith("@SQ")]
    expected = {field[1].removeprefix("SN:"): field[3].removeprefix("M5:") for field in fields}
    with genossm.genome.open(tmp_path / "x.zarr") as store:
        assert {contig: store.digest(contig) for contig in store.contigs} == expected


def test_anybody_can_read_the_letters_with_zarr(human_store: Path, human_slice: bytes) -> None:
    array = zarr.open_group(str(human_store), mode="r")["sequence/20"]
    assert isinstance(array, zarr.Array)
    assert np.asarray(array[1_200_000:1_300_000]).tobytes() == human_slice


def test_contigs_with_awkward_names_keep_apart(tmp_path: Path) -> None:
    contigs = {"HLA-A*01:01/x": b"ACGT", "..": b"CC", "__a": b"GG", "zarr.json": b"TT", "a%2Fb": b"AA", "a/b": b"NN"}
    fasta = write_fasta(tmp_path / "x.fa", contigs)
    build(fasta, tmp_path / "x.zarr")
    with genossm.genome.open(tmp_path / "x.zarr") as store:
        assert {name: store.fetch(Interval(name, 0, store.length(name))) for name in store.contigs} == contigs
    paths = {array_path("sequence", name) for name in contigs}
    assert len(paths) == len(contigs)
    assert all(path.count("/") == 1 for path in paths)


@pytest.fixture
def toy_store(tmp_path: Path) -> Path:
    fasta = write_fasta(tmp_path / "x.fa", toy_genome())
    return build(fasta, tmp_path / "x.zarr", chunk_length=1000, aliases={"one": "chr1"}, circular=["MT"]).path


def test_aliases_resolve_everywhere(toy_store: Path) -> None:
    with genossm.genome.open(toy_store, aliases={"two": "chr2"}) as genome:
        expected = genome.fetch(Interval("chr1", 600, 700))
        for name in ("1", "one"):
            assert genome.fetch(Interval(name, 600, 700)) == expected
            assert (genome.resolve(name), genome.length(name)) == ("chr1", 5000)
            assert genome.digest(name) == genome.digest("chr1")
            assert name in genome
        assert genome.length("two") == 2500
        assert genome.aliases("1") == ("1", "one")
        assert "chr9" not in genome
        with pytest.raises(ContigNotFoundError, match=r"x\.zarr has no contig 'chr9'. Nearest: chr"):
            genome.fetch(Interval("chr9", 0, 1))


def test_circular_contigs_go_on_from_their_start(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        ring = genome.fetch(Interval("chrM", 0, 500))
        assert genome.is_circular("M")
        assert not genome.is_circular("chr1")
        assert genome.fetch(Interval("chrM", 490, 510)) == ring[490:] + ring[:10]
        assert genome.fetch(Interval("chrM", 490, 510, "-")) == reverse_complement(ring[490:] + ring[:10])
        assert genome.encode(Interval("chrM", 499, 999), TOKENIZERS[0]).tolist() == (
            TOKENIZERS[0].encode(ring[499:] + ring[:499]).tolist()
        )
        for start, end in ((490, 991), (500, 510)):
            with pytest.raises(IntervalError, match="leaves contig chrM"):
                genome.fetch(Interval("chrM", start, end))


@pytest.mark.parametrize("interval", [Interval("chr1", 4990, 5001), Interval("chr1", 5000, 5001)])
def test_reading_past_the_end_is_refused(toy_store: Path, interval: Interval) -> None:
    with genossm.genome.open(toy_store) as genome, pytest.raises(IntervalError, match="which has 5,000 bases"):
        genome.encode(interval, TOKENIZERS[0])


def test_reader_is_cut_at_the_contigs_ends(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        fetch = genome.reader("1")
        assert fetch(-5, 3) == b"NNN"
        assert fetch(4990, 6000) == genome.fetch(Interval("chr1", 4990, 5000))
        assert fetch(5000, 5010) == b""
        last = fetch(4999, 5000).decode()
        assert left_align(Variant("chr1", 5000, last, last + "A"), fetch).ref


def test_out_is_filled_and_must_fit(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        interval = Interval("chr1", 600, 2800, "-")
        out = np.full(2200, 99, dtype=np.uint8)
        assert genome.encode(interval, TOKENIZERS[0], out=out) is out
        assert np.array_equal(out, genome.encode(interval, TOKENIZERS[0]))
        for wrong in (np.zeros(2199, dtype=np.uint8), np.zeros(2200, dtype=np.int64)):
            with pytest.raises(IntervalError, match=r"out: got .* wanted uint8 \(2200,\)"):
                genome.fetch_array(interval, out=wrong)  # type: ignore[arg-type]


class Pairs:
    """A tokenizer of another kind: one token for two letters."""

    def encode(self, sequence: np.ndarray, *, add_special_tokens: bool = False) -> np.ndarray:
        assert not add_special_tokens
        return sequence[::2].astype(np.int64) * 256 + sequence[1::2]


def test_tokenizers_of_other_kinds_get_the_letters(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        interval = Interval("chr1", 1480, 2020, "-")
        for uppercase in (True, False):
            letters = genome.fetch(interval, uppercase=uppercase)
            ids = genome.encode(interval, Pairs(), uppercase=uppercase)  # type: ignore[arg-type]
            assert ids.tolist() == [256 * letters[i] + letters[i + 1] for i in range(0, 540, 2)]


def test_a_strict_tokenizer_refuses_the_references_ambiguity_codes(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        around = Interval("chr1", 2490, 2510)
        assert genome.encode(around, NucleotideTokenizer()).tolist()[10] == NucleotideTokenizer.unk_id
        with pytest.raises(AlphabetError, match="'R' at position 10"):
            genome.encode(around, NucleotideTokenizer(on_unknown="raise"))


def test_small_reads_share_chunks_and_stay_right(toy_store: Path) -> None:
    expected = toy_genome()["chr1"]
    with genossm.genome.open(toy_store) as genome:
        for start in [*range(0, 4950, 77), *range(4900, 0, -77)]:
            fetched = genome.fetch_array(Interval("chr1", start, start + 50), uppercase=False)
            assert fetched.tobytes() == expected[start : start + 50]
            fetched[:] = 0  # what a caller does to its array must not reach the next reader


def ids_of(genome: Genome, start: int) -> list[int]:
    return genome.encode(Interval("20", start, start + 300), TOKENIZERS[0]).tolist()


@pytest.mark.parametrize("kind", ["human_fasta", "human_store"])
@pytest.mark.parametrize("method", ["spawn", "fork"])
# Python 3.12 warns of any fork beside threads (Zarr keeps some); people do it all the same.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_open_for_themselves(kind: str, method: str, request: pytest.FixtureRequest) -> None:
    starts = [1_500_000 + 1000 * i for i in range(40)]
    with genossm.genome.open(request.getfixturevalue(kind), aliases={"twenty": "20"}) as genome:
        expected = [ids_of(genome, start) for start in starts]
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            results = pool.starmap_async(ids_of, [(genome, start) for start in starts], chunksize=1)
            # The parent reads at the same time: a shared file position would show.
            assert [ids_of(genome, start) for start in starts] == expected
            assert results.get(timeout=120) == expected
        assert pickle.loads(pickle.dumps(genome)).resolve("twenty") == "20"


@pytest.mark.parametrize("kind", ["human_fasta", "human_store"])
def test_threads_may_share_a_genome(kind: str, request: pytest.FixtureRequest) -> None:
    starts = [1_500_000 + 50_000 * i for i in range(40)]
    with genossm.genome.open(request.getfixturevalue(kind)) as genome:
        expected = [ids_of(genome, start) for start in starts]
        wrong: list[int] = []

        def read(order: list[int]) -> None:
            for i in order:
                if ids_of(genome, starts[i]) != expected[i]:
                    wrong.append(i)

        orders = [list(np.random.default_rng(seed).permutation(40)) for seed in range(4)]
        threads = [threading.Thread(target=read, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def edit(store: Path, change: Any) -> None:
    path = store / "zarr.json"
    content = json.loads(path.read_text())
    change(content["attributes"])
    path.write_text(json.dumps(content))


DAMAGE = {
    "newer schema": (
        lambda store: edit(store, lambda a: a["genossm"].update(schema=2)),
        r"written by a newer genossm \(store schema 2, this one reads up to 1\). Update genossm",
    ),
    "no attributes": (lambda store: edit(store, lambda a: a.clear()), "is no whole genome store"),
    "no metadata": (lambda store: (store / "zarr.json").unlink(), "is no whole genome store"),
    "broken metadata": (lambda store: (store / "zarr.json").write_text("{"), "is no whole genome store"),
    "strange attributes": (
        lambda store: edit(store, lambda a: a["genossm"].pop("contigs")),
        "attributes are damaged .*contigs is missing",
    ),
    "no array": (lambda store: shutil.rmtree(store / "sequence" / "chr1"), "is missing or damaged"),
    "no chunk": (lambda store: (store / "sequence/chr1/c/2").unlink(), "sequence/chr1/c/2: .* missing or damaged"),
    "half a chunk": (
        lambda store: (store / "sequence/chr1/c/2").write_bytes((store / "sequence/chr1/c/2").read_bytes()[:50]),
        "sequence/chr1/c/2: .* missing or damaged",
    ),
    "foreign chunk": (
        lambda store: (store / "sequence/chr1/c/2").write_bytes(b"no blosc"),
        "sequence/chr1/c/2: .* missing or damaged",
    ),
    "no soft mask": (lambda store: shutil.rmtree(store / "soft_mask"), "soft_mask/chr1: .* missing or damaged"),
    "wrong length": (
        lambda store: edit(store, lambda a: a["genossm"]["contigs"][0].update(length=4999)),
        "contig chr1 should have 4,999 bases, its array has 5,000",
    ),
}


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_a_damaged_store_is_one_clear_error_never_n(toy_store: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(toy_store)
    with pytest.raises(InputFileError, match=message) as caught:
        genossm.genome.open(toy_store).fetch(Interval("chr1", 100, 4900), uppercase=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", CODECS)
def test_cut_off_chunks_of_every_codec_are_found(tmp_path: Path, codec: Any) -> None:
    fasta = write_fasta(tmp_path / "x.fa", {"a": b"ACGT" * 750})
    store = build(fasta, tmp_path / "x.zarr", chunk_length=1000, codec=codec).path
    chunk = store / "sequence/a/c/1"
    whole = chunk.read_bytes()
    for damaged in (whole[:-5], whole[: len(whole) // 2], whole[:1], b""):
        chunk.write_bytes(damaged)
        require_chunk_error(store)
    chunk.write_bytes((store / "sequence/a/c/2").read_bytes())
    with genossm.genome.open(store) as genome:
        assert genome.fetch(Interval("a", 0, 2000)) == b"ACGT" * 500


def require_chunk_error(store: Path) -> None:
    with genossm.genome.open(store) as genome, pytest.raises(InputFileError, match="sequence/a/c/1"):
        genome.fetch(Interval("a", 0, 2000))


def test_an_array_that_only_zarr_can_read_is_read_by_zarr(toy_store: Path) -> None:
    expected = toy_genome()["chr1"]
    shutil.rmtree(toy_store / "sequence" / "chr1")
    root = zarr.open_group(str(toy_store), mode="a")
    array = root.create_array(
        "sequence/chr1", shape=(5000,), chunks=(500,), dtype="uint8", fill_value=78, compressors=GzipCodec()
    )
    array[:] = np.frombuffer(expected.upper(), dtype=np.uint8)
    with genossm.genome.open(toy_store) as genome:
        assert genome.fetch(Interval("chr1", 300, 4700)) == expected[300:4700].upper()
        assert genome.fetch(Interval("chr1", 1700, 2300, "-"), uppercase=False) == reverse_complement(
            expected[1700:2300]
        )


@pytest.mark.parametrize("codec", CODECS)
def test_shards_hold_the_same_letters_in_fewer_files(tmp_path: Path, codec: Any) -> None:
    letters = toy_genome()["chr1"].upper()
    fasta = write_fasta(tmp_path / "x.fa", {"a": letters, "n": b"N" * 700})
    store = build(fasta, tmp_path / "x.zarr", chunk_length=300, shard_length=900, codec=codec).path
    assert sorted(file.name for file in (store / "sequence/a/c").iterdir()) == [str(n) for n in range(6)]
    with genossm.genome.open(store) as genome:
        for start, end in ((0, 5000), (250, 1900), (899, 901), (4990, 5000), (10, 20)):
            assert genome.fetch(Interval("a", start, end)) == letters[start:end]
            assert genome.fetch(Interval("a", start, end, "-")) == reverse_complement(letters[start:end])
        assert genome.fetch(Interval("n", 0, 700)) == b"N" * 700
    assert np.asarray(zarr.open_array(str(store / "sequence/a"), mode="r")[:]).tobytes() == letters
    shard = store / "sequence/a/c/1"
    whole = shard.read_bytes()
    missing = whole[:-52] + b"\xff" * 16 + whole[-36:]
    for damaged in (whole[:-5], whole[60:], whole[:20], b"", missing):
        shard.write_bytes(damaged)
        with genossm.genome.open(store) as genome, pytest.raises(InputFileError, match=r"sequence/a/c/1: .* damaged"):
            genome.fetch(Interval("a", 0, 2000))


def test_a_directory_of_another_kind_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"is no whole genome store\. Build it again: genossm genome build"):
        genossm.genome.open(tmp_path)


def test_a_closed_store_says_so(toy_store: Path) -> None:
    with genossm.genome.open(toy_store) as genome:
        pass
    with pytest.raises(InputFileError, match="was closed"):
        genome.fetch(Interval("chr1", 0, 1))


def test_reading_needs_neither_zarr_nor_torch(human_store: Path) -> None:
    code = (
        "import sys, genossm.genome as g; from genossm.sequence import *;"
        f"g.open({str(human_store)!r}).encode(Interval('20', 0, 2_000_000), NucleotideTokenizer());"
        "print([name for name in ('zarr', 'torch', 'pysam') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"

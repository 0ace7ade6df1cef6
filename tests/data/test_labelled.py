"""Labelled intervals and sequences: real sequence with labels, in the forms that people ship."""

from __future__ import annotations

import gzip
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from torch.utils.data import DataLoader

import genossm.genome
from genossm.core.errors import InputFileError, IntervalError, MissingDependencyError
from genossm.data.labelled_intervals import LabelledIntervals, read_labelled_intervals
from genossm.data.labelled_sequences import LabelledSequences, read_class_folders, read_sequence_table
from genossm.genome import Genome
from genossm.sequence import Interval, NucleotideTokenizer

DATA = Path(__file__).parents[2] / "data" / "chr20_1-4Mb.fa.gz"
TOKENIZER = NucleotideTokenizer()
ROWS = [("20", 1_500_000, 1_500_200, "+", 1.5, 0), ("chr20", 2_000_000, 2_000_101, "-", -2.0, 1)]


@pytest.fixture(scope="module")
def genome() -> Iterator[Genome]:
    with genossm.genome.open(DATA) as opened:
        yield opened


@pytest.fixture(params=["tsv", "csv", "csv.gz", "parquet", "bed"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"peaks.{request.param}"
    names = ("contig", "start", "end", "strand", "signal", "bound")
    if request.param == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, zip(*ROWS)))), path)
    elif request.param == "bed":
        path.write_text("".join(f"{c}\t{s}\t{e}\tpeak\t{v}\t{strand}\n" for c, s, e, strand, v, _ in ROWS))
    else:
        separator = "," if "csv" in request.param else "\t"
        text = "\n".join(separator.join(map(str, row)) for row in [names, *ROWS]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_form_gives_the_same_intervals_and_labels(table: Path, genome: Genome) -> None:
    intervals, labels = read_labelled_intervals(
        table, genome, labels=["score"] if table.suffix == ".bed" else ["signal", "bound"]
    )
    assert intervals == [Interval("20", 1_500_000, 1_500_200), Interval("20", 2_000_000, 2_000_101, "-")]
    assert labels[:, 0].tolist() == [1.5, -2.0]
    assert labels.dtype == np.float32
    if table.suffix != ".bed":
        assert labels[:, 1].tolist() == [0, 1]


def test_an_item_is_the_window_around_the_middle_on_its_strand(genome: Genome) -> None:
    places = [Interval("20", 1_500_000, 1_500_200), Interval("20", 2_000_000, 2_000_100, "-")]
    data = LabelledIntervals(genome, places, np.array([[1.0], [np.nan]], np.float32), TOKENIZER, 1000)
    assert (len(data), data.padded, data.shifted) == (2, 0, 0)
    assert TOKENIZER.decode(data[0].ids).encode() == genome.fetch(Interval("20", 1_499_600, 1_500_600))
    assert TOKENIZER.decode(data[1].ids).encode() == genome.fetch(Interval("20", 1_999_550, 2_000_550, "-"))
    assert np.isnan(data[1].labels[0])
    assert data[1].interval == places[1]


def test_edges_are_counted_or_refused(genome: Genome) -> None:
    places = [Interval("20", 3_999_900, 4_000_000), Interval("20", 3_000_000, 3_000_100)]
    labels = np.zeros((2, 1), np.float32)
    with pytest.raises(IntervalError, match="leaves contig 20"):
        LabelledIntervals(genome, places, labels, TOKENIZER, 1000)
    padded = LabelledIntervals(genome, places, labels, TOKENIZER, 1000, edges="pad")
    assert (padded.padded, padded.shifted) == (1, 0)
    assert TOKENIZER.decode(padded[0].ids)[-450:] == "N" * 450
    moved = LabelledIntervals(genome, places, labels, TOKENIZER, 1000, edges="shift")
    assert (moved.padded, moved.shifted) == (0, 1)
    assert TOKENIZER.decode(moved[0].ids).encode() == genome.fetch(Interval("20", 3_999_000, 4_000_000))


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_workers_see_what_one_process_sees(genome: Genome, method: str) -> None:
    places = [Interval("20", start, start + 50) for start in range(1_200_000, 1_200_000 + 8 * 777, 777)]
    data = LabelledIntervals(genome, places, np.arange(8, dtype=np.float32)[:, None], TOKENIZER, 300)
    loader = DataLoader(
        data, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context=multiprocessing.get_context(method)
    )
    found = [item for batch in loader for item in batch]
    assert [item.interval for item in found] == places
    assert all((item.ids == data[i].ids).all() and item.labels == data[i].labels for i, item in enumerate(found))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contig,start,end,signl\n20,5,9,1\n", "no column 'signal'.*Did you mean 'signl'"),
        ("contig,start,end,signal\n20,5,9,high\n", "row 1: signal is 'high'"),
        ("contig,start,end,signal\n20,5,9\n", "row 1: 3 columns, wanted 4"),
        ("contig,start,end,signal\n", "has no row"),
        ("contig,contig,end,signal\n20,5,9,1\n", "two columns have one name"),
        ("contig,start,end,signal\n20,5,9,1\nX,5,9,1\n", "row 2.*X"),
        ("contig,start,end,signal\n20,5,9000000,1\n", "row 1.*ends after contig 20"),
    ],
)
def test_bad_tables_name_the_row(tmp_path: Path, genome: Genome, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputFileError, match=message):
        read_labelled_intervals(tmp_path / "x.csv", genome, labels=["signal"])


def test_other_bad_tables(tmp_path: Path, genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputFileError, match="No table at"):
        read_labelled_intervals(tmp_path / "none.tsv", genome)
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(InputFileError, match="no Parquet file"):
        read_labelled_intervals(tmp_path / "x.parquet", genome)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"genossm\[tables\]"):
        read_labelled_intervals(tmp_path / "x.parquet", genome)


def test_sequence_tables_as_gue_ships_them(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("sequence,label\nACGTn,1\nggcc,0\n")
    data = LabelledSequences(read_sequence_table(tmp_path / "dev.csv"), TOKENIZER)
    assert [(TOKENIZER.decode(item.ids), item.label) for item in data] == [("ACGTN", 1.0), ("GGCC", 0.0)]
    for text, message in (("ACGE,1", "row 1: 'E' is no nucleotide"), (",1", "row 1: the sequence is empty")):
        (tmp_path / "bad.csv").write_text(f"sequence,label\n{text}\n")
        with pytest.raises(InputFileError, match=message):
            read_sequence_table(tmp_path / "bad.csv")


def test_class_folders_as_genomic_benchmarks_ships_them(tmp_path: Path) -> None:
    (tmp_path / "positive").mkdir()
    (tmp_path / "positive" / "1.txt").write_text("ACGT\nAC\n")
    (tmp_path / "positive" / "2.fa").write_text(">a\nGG\nCC\n>b\nttt\n")
    (tmp_path / "negative.fa").write_text(">c d\nAAAA\n")
    found = read_class_folders(tmp_path, {"positive": 1, "negative": 0})
    assert [(one.sequence, one.label) for one in found] == [("ACGTAC", 1), ("GGCC", 1), ("TTT", 1), ("AAAA", 0)]
    with pytest.raises(InputFileError, match="no sequence of class 'other'"):
        read_class_folders(tmp_path, {"other": 1})
    (tmp_path / "negative.fa").write_text(">c d\nAA-A\n")
    with pytest.raises(InputFileError, match=r"negative\.fa, record c: '-' is no nucleotide"):
        read_class_folders(tmp_path, {"negative": 0})

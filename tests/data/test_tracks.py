"""bigWig tracks: bins against a dense array by hand, both strands, any worker, and files of another assembly."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pybigtools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError, IntervalError, MissingDependencyError
from genossm.data.tracks import BigWigTracks, TrackWindows
from genossm.data.windows import RandomWindows
from genossm.genome import Genome
from genossm.sequence import Interval, NucleotideTokenizer
from genossm.testing import random_sequence, write_fasta

LENGTHS = {"chr1": 1200, "chr2": 300}


def write_bigwig(path: Path, lengths: dict[str, int], values: dict[str, np.ndarray]) -> Path:
    entries = [
        (contig, place, place + 1, float(value))
        for contig, array in values.items()
        for place, value in enumerate(array)
        if not np.isnan(value)
    ]
    pybigtools.open(str(path), "w").write(lengths, entries)
    return path


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    dense = {contig: generator.integers(0, 50, length).astype(float) for contig, length in LENGTHS.items()}
    dense["chr1"][100:700] = np.nan
    dense["chr1"][generator.random(1200) < 0.3] = np.nan
    return dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, values: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    write_fasta(folder / "x.fa", {name: random_sequence(size, seed=size) for name, size in LENGTHS.items()})
    write_bigwig(folder / "a.bw", LENGTHS, values)
    # Another naming, and one contig only.
    write_bigwig(folder / "b.bw", {"1": 1200}, {"1": values["chr1"] * 2})
    return folder


@pytest.fixture(scope="module")
def genome(folder: Path) -> Iterator[Genome]:
    with genossm.genome.open(folder / "x.fa") as opened:
        yield opened


@given(
    start=st.integers(0, 250), bins=st.integers(1, 8), length=st.integers(1, 40), strand=st.sampled_from("+-"),
    summary=st.sampled_from(["mean", "sum", "max"]), uncovered=st.sampled_from(["zero", "ignore"]),
)  # fmt: skip
def test_bins_are_those_of_the_dense_array(
    folder: Path, genome: Genome, values: dict[str, np.ndarray], start: int, bins: int, length: int, strand: str,
    summary: str, uncovered: str,
) -> None:  # fmt: skip
    tracks = BigWigTracks([folder / "a.bw", folder / "b.bw"], genome, length, summary=summary, uncovered=uncovered)  # type: ignore[arg-type]
    found = tracks.read(Interval("chr1", start, start + bins * length, strand))
    dense = values["chr1"][start : start + bins * length]
    if uncovered == "zero":
        dense = np.nan_to_num(dense)
    expected = []
    for first in range(0, bins * length, length):
        known = [value for value in dense[first : first + length] if not np.isnan(value)]
        expected.append(getattr(np, summary)(known) if known else np.nan)
    expected = expected[:: 1 if strand == "+" else -1]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], np.array(expected) * 2, rtol=1e-6)


def test_a_contig_that_a_file_lacks_is_uncovered(folder: Path, genome: Genome) -> None:
    paths = [folder / "a.bw", folder / "b.bw"]
    zero = BigWigTracks(paths, genome, 100).read(Interval("chr2", 0, 300))
    assert zero[:, 0].min() > 0
    assert zero[:, 1].tolist() == [0, 0, 0]
    ignored = BigWigTracks(paths, genome, 100, uncovered="ignore").read(Interval("chr2", 0, 300))
    assert np.isnan(ignored[:, 1]).all()


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_windows_carry_their_own_bases_and_bins_in_any_process(folder: Path, genome: Genome, method: str) -> None:
    tracks = BigWigTracks([folder / "a.bw"], genome, 20)
    plan = RandomWindows(genome, [Interval("chr1", 0, 1200)], 200, seed=3, reverse_complement=True)
    data = TrackWindows(genome, plan, NucleotideTokenizer(), tracks)
    expected = [data[i] for i in range(6)]
    assert {item.interval.strand for item in expected} == {"+", "-"}
    for item in expected:
        assert (item.ids == genome.encode(item.interval, NucleotideTokenizer())).all()
        assert (item.targets == tracks.read(item.interval)).all()
    context = multiprocessing.get_context(method)
    found = DataLoader(
        data, batch_size=1, sampler=range(6), num_workers=2, collate_fn=list, multiprocessing_context=context
    )
    for (item,), other in zip(found, expected, strict=True):
        assert item.interval == other.interval
        assert (item.targets == other.targets).all()
    again = pickle.loads(pickle.dumps(tracks))
    assert (again.read(expected[0].interval) == expected[0].targets).all()


def test_another_assembly_is_refused(tmp_path: Path, genome: Genome) -> None:
    ones = np.ones(10)
    longer = write_bigwig(tmp_path / "longer.bw", {"chr1": 1300}, {"chr1": ones})
    with pytest.raises(InputFileError, match=r"chr1 has 1,300 bases, in x\.fa 1,200\. It was made on another assembly"):
        BigWigTracks([longer], genome, 10)
    other = write_bigwig(tmp_path / "other.bw", {"chrX": 1300}, {"chrX": ones})
    with pytest.raises(InputFileError, match=r"none of the contigs of x\.fa \(chr1, chr2\); it has chrX"):
        BigWigTracks([other], genome, 10)


def test_what_cannot_be_read(tmp_path: Path, folder: Path, genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.bw").write_text("no bigWig at all" * 20)
    with pytest.raises(InputFileError, match="no bigWig file"):
        BigWigTracks([tmp_path / "no.bw"], genome, 10)
    with pytest.raises(InputFileError, match="No bigWig file at"):
        BigWigTracks([tmp_path / "none.bw"], genome, 10)
    with pytest.raises(ConfigError, match="bins of 0 bases"):
        BigWigTracks([folder / "a.bw"], genome, 0)
    tracks = BigWigTracks([folder / "a.bw"], genome, 30)
    with pytest.raises(IntervalError, match="no multiple of the bin of 30"):
        tracks.read(Interval("chr1", 0, 100))
    with pytest.raises(ConfigError, match="no multiple of the bin of 30"):
        TrackWindows(genome, RandomWindows(genome, [Interval("chr1", 0, 500)], 100), NucleotideTokenizer(), tracks)
    monkeypatch.setitem(__import__("sys").modules, "pybigtools", None)
    with pytest.raises(MissingDependencyError, match=r"genossm\[tracks\]"):
        BigWigTracks([folder / "a.bw"], genome, 10)

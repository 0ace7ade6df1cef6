"""A store that lost or changed anything since it was built is found out; a whole one is not slandered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import genossm.genome.verify
from genossm.core.errors import InputFileError, UsageError
from genossm.genome import build
from genossm.genome.layout import array_path
from genossm.genome.verify import compare, verify
from genossm.testing import random_sequence, toy_genome, write_fasta

COMMAND = Path(sys.executable).parent / "genossm"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fasta = write_fasta(tmp_path / "x.fa", toy_genome() | {"masked": b"ACGTNNacgtnnACGT" * 20, "plain": b"ACGT" * 50})
    build(fasta, tmp_path / "x.zarr", chunk_length=700)
    return tmp_path / "x.zarr"


def problems(store: Path) -> dict[str, str]:
    return {one.contig: one.problem for one in verify(store) if one.problem}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(block=st.integers(1, 40))
def test_a_whole_store_is_whole_at_any_block(store: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genossm.genome.verify, "_BLOCK", block)
    assert problems(store) == {}


def set_base(store: Path, contig: str, place: int, letter: str) -> None:
    array = zarr.open_array(str(store / array_path("sequence", contig)), mode="r+")
    array[place] = ord(letter)


def change_attributes(store: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((store / "zarr.json").read_text())
    change(content["attributes"]["genossm"])
    (store / "zarr.json").write_text(json.dumps(content))


def test_one_changed_base_is_found(store: Path) -> None:
    set_base(store, "plain", 8, "C")
    assert set(problems(store)) == {"plain"}
    assert "digest" in problems(store)["plain"]
    set_base(store, "plain", 8, "A")
    assert problems(store) == {}


def test_a_missing_or_cut_chunk_is_found(store: Path) -> None:
    chunk = store / array_path("sequence", "chr1") / "c" / "1"
    packed = chunk.read_bytes()
    chunk.write_bytes(packed[:-3])
    assert "damaged" in problems(store)["chr1"]
    chunk.unlink()
    assert set(problems(store)) == {"chr1"}


@pytest.mark.parametrize(("group", "word"), [("n_runs", "N runs"), ("soft_mask", "soft-mask")])
def test_a_changed_run_is_found(store: Path, group: str, word: str) -> None:
    array = zarr.open_array(str(store / array_path(group, "masked")), mode="r+")
    array[1] = np.asarray(array[1]) - 1
    if group == "soft_mask":  # as many bases as before in another place: only the bases themselves could tell
        assert problems(store) == {}
        array[1, 1] = int(np.asarray(array[1, 1])) + 1
    assert word in problems(store)["masked"]


def test_changed_attributes_are_found(store: Path) -> None:
    change_attributes(store, lambda content: content["contigs"][0].__setitem__("m5", "0" * 32))
    with pytest.raises(InputFileError, match="attributes were changed"):
        verify(store)


def test_only_a_store_can_be_verified(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "y.fa", {"one": random_sequence(100, seed=1)})
    with pytest.raises(UsageError, match="no genome store"):
        verify(fasta)


def test_command_prints_a_table_and_fails_on_damage(store: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "genome", "verify", store.name], capture_output=True, text=True, cwd=store.parent, check=False
        )

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["contig", "length", "m5", "status"]
    assert {row[3] for row in rows} == {"OK"}
    set_base(store, "plain", 0, "N")
    done = run()
    assert done.returncode == 1
    assert done.stderr == (
        "genossm: error: x.zarr is damaged: 1 of 5 contigs are not what was built (plain). Build it again.\n"
    )
    assert [line.split("\t")[3] == "OK" for line in done.stdout.splitlines()[1:]] == [True] * 4 + [False]


def differing(store: Path, other: Path) -> dict[str, str]:
    return {one.contig: one.problem for one in compare(store, other) if one.problem}


def test_a_store_and_the_fasta_it_was_built_from_agree_by_any_alias(store: Path, tmp_path: Path) -> None:
    assert differing(store, tmp_path / "x.fa") == {}
    text = (tmp_path / "x.fa").read_text().replace(">chr2", ">2")
    (tmp_path / "y.fa").write_text(text)
    assert differing(store, tmp_path / "y.fa") == {}


def test_what_a_store_and_a_fasta_disagree_in_is_named(store: Path, tmp_path: Path) -> None:
    contigs = toy_genome() | {"masked": b"ACGTNNACGTNNACGT" * 20, "plain": b"ACGT" * 49, "more": b"ACGT"}
    del contigs["chr2"]
    assert differing(store, write_fasta(tmp_path / "y.fa", contigs)) == {
        "masked": "the bases are the same, and the soft-mask is not that of y.fa",
        "plain": "y.fa has 196 bases of it",
        "chr2": "y.fa does not have it",
        "more": "only y.fa has it",
    }


def test_the_command_compares_and_fails_in_one_line(store: Path, tmp_path: Path) -> None:
    arguments = [COMMAND, "genome", "verify", store, "--against"]
    same = subprocess.run([*arguments, tmp_path / "x.fa"], capture_output=True, text=True)
    assert same.returncode == 0
    assert same.stdout.count("\tOK\n") == len(same.stdout.splitlines()) - 1
    text = (tmp_path / "x.fa").read_text()
    (tmp_path / "y.fa").write_text(text[:-3] + ("CA\n" if text[-3:-1] != "CA" else "AC\n"))
    other = subprocess.run([*arguments, tmp_path / "y.fa"], capture_output=True, text=True)
    assert other.returncode == 1
    assert "its bases differ: in y.fa their digest is" in other.stdout
    assert other.stderr.count("\n") == 1
    assert "are not the same reference: 1 of" in other.stderr
    assert "(plain)" in other.stderr

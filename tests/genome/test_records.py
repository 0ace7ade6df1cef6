"""The FASTA stream, cut at every place by the pieces in which a file is read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.genome import fasta_records
from genossm.genome.fasta_records import records
from genossm.testing import write_fasta
from genossm.testing.strategies import genomes


@given(contigs=genomes(max_length=60), size=st.integers(1, 40), line_length=st.integers(1, 30), newline=st.booleans())
def test_pieces_of_any_size_give_the_same_records(
    contigs: dict[str, bytes], size: int, line_length: int, newline: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_fasta(tmp_path_factory.mktemp("records") / "x.fa", contigs, line_length=line_length)
    content = path.read_bytes() if newline else path.read_bytes().rstrip(b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasta_records, "pieces", lambda *_: (content[i : i + size] for i in range(0, len(content), size)))
        found = list(records(path))
    assert {record.name: record.sequence() for record in found} == contigs
    for record in found:
        lines = [record.sequence()[i : i + line_length] for i in range(0, len(record.sequence()), line_length)]
        assert content[record.offset :].startswith(lines[0])
        assert record.line_shape() == (len(lines[0]), len(lines[0]) + 1)


def test_many_small_contigs_take_time_in_proportion(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "x.fa", {f"c{i}": b"ACGT" for i in range(100_000)})
    started = time.perf_counter()
    assert sum(len(record.sequence()) for record in records(path)) == 400_000
    # Copying what is left of a piece for every contig would take minutes.
    assert time.perf_counter() - started < 20

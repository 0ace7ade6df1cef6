from __future__ import annotations

from pathlib import Path

import pytest

from genossm.testing import toy_genome, write_fasta
from genossm.testing.benchmark_genome import COLUMNS, main


@pytest.mark.parametrize("busy", [False, True])
def test_every_row_of_the_table_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], busy: bool) -> None:
    main(write_fasta(tmp_path / "x.fa", toy_genome(length=20_000)), count=2, busy=busy)
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == list(COLUMNS)
    assert len(rows) == 1 + 4 * 5 + 3 + 4
    assert all(float(value) > 0 for row in rows for value in row[-2:])
    assert [row[0].split(",")[0] for row in rows[-2:]] == ["pysam.FastaFile", "pyfaidx.Fasta"]

"""A table through the scorer: every row and column comes out as it came, with the scores a VCF would get."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genossm.cli.main import run as run_command
from genossm.core.errors import (
    ContigNotFoundError,
    GenossmError,
    InputFileError,
    OutputExistsError,
    ReferenceMismatchError,
    TooManySkippedError,
    UsageError,
)
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import ScoringOptions, score
from genossm.variants.score_table import TablePolicy, score_table
from genossm.variants.table_columns import find_columns, parse_columns

OPTIONS = ScoringOptions(context=64, horizon=8)


@pytest.fixture(scope="module")
def rows(human_genome: Genome) -> list[list[str]]:
    """An unscorable row between scorable ones; values that readers of tables like to change."""
    found = []
    for pos1, length, alt in ((5001, 1, "N"), (5003, 2, "T"), (5002, 1, "<DEL>"), (7000, 1, "ACGT")):
        ref = _bases(human_genome, pos1, length)
        found.append(
            ["007", "20", str(pos1), ref, "C" if alt == "N" and ref != "C" else alt.replace("N", "G"), 'a "b", c']
        )
    return found


def _bases(genome: Genome, pos1: int, length: int) -> str:
    from genossm.sequence import Interval

    return genome.fetch(Interval("20", pos1 - 1, pos1 - 1 + length)).decode()


NAMES = ["id", "Chrom", "POS", "ref", "alt", "note, quoted"]


def write(path: Path, rows: list[list[str]], names: list[str] = NAMES) -> Path:
    opened = gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="")  # noqa: SIM115
    with opened as file:
        csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",").writerows([names, *rows])
    return path


def run(model: SequenceModel, genome: Genome, source: Path, target: Path, policy: TablePolicy | None = None):
    return score_table(model, genome, source, target, OPTIONS, policy or TablePolicy(), command="genossm score-table")


@pytest.mark.parametrize("names", [("in.csv", "out.csv"), ("in.tsv.gz", "out.csv"), ("in.csv", "out.tsv.gz")])
def test_rows_columns_and_order_stay(
    names: tuple[str, str], model: SequenceModel, human_genome: Genome, rows: list[list[str]], tmp_path: Path
) -> None:
    source, target = write(tmp_path / names[0], rows), tmp_path / names[1]
    summary = run(model, human_genome, source, target)
    separator = "\t" if ".tsv" in target.name else ","
    text = gzip.decompress(target.read_bytes()).decode() if target.suffix == ".gz" else target.read_text()
    head, *found = csv.reader(text.splitlines(), delimiter=separator)
    assert head == [*NAMES, "GENOSSM_LLR", "GENOSSM_STATUS"]
    assert [row[:-2] for row in found] == rows
    assert [row[-1] for row in found] == ["OK", "OK", "SYMBOLIC", "OK"]
    assert (summary.records, summary.scored, summary.skipped()) == (4, 3, {"SYMBOLIC": 1})
    for row, given in zip(found, rows):
        if row[-1] == "OK":
            [alone] = score(
                model, human_genome, [Variant("20", int(given[2]), given[3], given[4])], context=64, horizon=8
            )
            assert float(row[-2]) == pytest.approx(alone.llr, abs=1e-4)
        else:
            assert row[-2] == ""


def test_parquet_keeps_types_and_metadata(
    model: SequenceModel, human_genome: Genome, rows: list[list[str]], tmp_path: Path
) -> None:
    positions = pa.array([int(row[2]) for row in rows], pa.int32())
    columns = {
        "pos": positions,
        "chr": pa.array([20] * 4, pa.int8()),
        "ref": pa.array([row[3] for row in rows]).dictionary_encode(),
        "alt": pa.array([row[4] for row in rows]),
        "effect": pa.array([0.1, None, float("nan"), 3.0], pa.float32()),
        "tissues": pa.array([["liver"], [], None, ["brain", "skin"]]),
    }
    table = pa.table(columns).replace_schema_metadata({"origin": "somewhere"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    run(model, human_genome, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == [*table.column_names, "GENOSSM_LLR", "GENOSSM_STATUS"]
    for name in table.column_names:
        assert found.schema.field(name).type == table.schema.field(name).type
        assert str(found.column(name).to_pylist()) == str(table.column(name).to_pylist())
    assert found.column("GENOSSM_LLR").null_count == 1
    assert found.schema.metadata[b"origin"] == b"somewhere"
    facts = json.loads(found.schema.metadata[b"genossm"])
    assert facts["provenance"]["model_digest"] == model.digest()
    assert facts["options"]["context"] == 64


def test_a_frame_in_a_frame_out(model: SequenceModel, human_genome: Genome, rows: list[list[str]]) -> None:
    frame = pd.DataFrame(rows, columns=NAMES, index=[9, 3, 3, 1]).assign(GENOSSM_OLD=1.0)
    before = frame.copy()
    found = score(model, human_genome, frame, context=64, horizon=8, methods=["llr", "embedding"])
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(found[NAMES], frame[NAMES])
    assert list(found.columns[len(NAMES) :])[:2] == ["GENOSSM_LLR", "GENOSSM_EMB_L2"]
    assert np.isnan(found["GENOSSM_LLR"]).tolist() == [False, False, True, False]
    one = Variant("20", int(rows[0][2]), rows[0][3], rows[0][4])
    [alone] = score(model, human_genome, [one], context=64, horizon=8)
    assert found["GENOSSM_LLR"].iloc[0] == pytest.approx(alone.llr, abs=1e-4)
    by_text = score(model, human_genome, pd.DataFrame({"variant": [str(one)]}), context=64, horizon=8)
    assert by_text["GENOSSM_LLR"].iloc[0] == pytest.approx(alone.llr, abs=1e-4)


def test_a_table_without_rows(model: SequenceModel, human_genome: Genome, tmp_path: Path) -> None:
    run(model, human_genome, write(tmp_path / "in.csv", []), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        'id,Chrom,POS,ref,alt,"note, quoted",GENOSSM_LLR,GENOSSM_STATUS'
    ]


def test_scores_of_an_earlier_run(
    model: SequenceModel, human_genome: Genome, rows: list[list[str]], tmp_path: Path
) -> None:
    run(model, human_genome, write(tmp_path / "in.csv", rows), tmp_path / "once.csv")
    with pytest.raises(InputFileError, match=r"earlier run \(GENOSSM_LLR, GENOSSM_STATUS\)"):
        run(model, human_genome, tmp_path / "once.csv", tmp_path / "twice.csv")
    with pytest.raises(OutputExistsError):
        run(model, human_genome, tmp_path / "in.csv", tmp_path / "once.csv")
    run(model, human_genome, tmp_path / "once.csv", tmp_path / "twice.csv", TablePolicy(force=True))
    assert (tmp_path / "twice.csv").read_text() == (tmp_path / "once.csv").read_text()


def mismatch(rows: list[list[str]]) -> list[list[str]]:
    return [
        [*row[:3], "C" if row[3][0] != "C" else "G", "T", row[5]] if number == 1 else row
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("change", "names", "policy", "error", "said"),
    [
        (lambda rows: [[*rows[0][:2], "x", *rows[0][3:]]], NAMES, {}, InputFileError, "line 2: the position is 'x'"),
        (lambda rows: [rows[0], rows[1][:4]], NAMES, {}, InputFileError, "line 3 has 4 values, wanted 6"),
        (lambda rows: rows, ["id", "Chrom", "bp", "ref", "alt", "n"], {}, InputFileError, "no column for pos"),
        (lambda rows: rows, ["id", "Chrom", "pos", "ref", "alt", "chr"], {}, InputFileError, "2 columns for contig"),
        (lambda rows: rows, ["id", "Chrom", "pos", "ref", "alt", "id"], {}, InputFileError, "two columns called 'id'"),
        (lambda rows: rows, NAMES, {"columns": {"pos": "PSO"}}, UsageError, "no column 'PSO'. Did you mean 'POS'"),
        (lambda rows: rows, NAMES, {"columns": {"start": "POS"}}, UsageError, "'start' is no part of a variant"),
        (mismatch, NAMES, {"check_ref": "e"}, ReferenceMismatchError, "line 3: REF of 20:5003"),
        (mismatch, NAMES, {"max_skip_frac": 0.25}, TooManySkippedError, "2 of 4 rows"),
        (
            lambda rows: [[row[0], "21", *row[2:]] for row in rows],
            NAMES,
            {},
            ContigNotFoundError,
            "None of the contigs",
        ),
    ],
)
def test_what_stops_a_run_leaves_nothing(
    change,
    names: list[str],
    policy: dict,
    error: type[GenossmError],
    said: str,
    model: SequenceModel,
    human_genome: Genome,
    rows: list[list[str]],
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "in.csv", change(rows), names)
    with pytest.raises(error, match=said.replace("(", r"\(")):
        run(model, human_genome, source, tmp_path / "out.csv", TablePolicy(**policy))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("alt", ["", "."])
def test_no_alt_is_called_so(
    model: SequenceModel, human_genome: Genome, rows: list[list[str]], alt: str, tmp_path: Path
) -> None:
    run(model, human_genome, write(tmp_path / "in.csv", [[*rows[0][:4], alt, rows[0][5]]]), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().strip().endswith(",NO_ALT")


def test_which_columns() -> None:
    assert find_columns(["CHROM", "pos", "ref", "alt", "variant"], name="t").names == ("CHROM", "pos", "ref", "alt")
    assert find_columns(["pos", "Variant"], name="t").names == ("Variant",)
    given = parse_columns("contig=A, pos=B,ref=C,alt=D")
    assert find_columns(["A", "B", "C", "D"], given, name="t").names == ("A", "B", "C", "D")
    assert find_columns(["chr", "pos", "ref", "alt", "v"], {"variant": "v"}, name="t").names == ("v",)
    with pytest.raises(UsageError, match="Cannot read --columns"):
        parse_columns("contig:A")


def test_the_command(
    model_dir: Path,
    human_fasta: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("variant\n20:1000226:A>T\n20:5:A>C\n20:1000341:C>A\n20:1000716:T>A\n")
    usual = ["score-table", "in.csv", "-f", str(human_fasta), "-m", str(model_dir), "--context", "64"]
    with pytest.raises(SystemExit) as stop:
        run_command([*usual, "-o", "out.csv", "--summary", "counts.json"])
    assert not stop.value.code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("genossm score-table: 4 records, 4 alleles: 3 scored, 1 not (1 REF_MISMATCH)")
    assert (tmp_path / "out.csv").read_text().splitlines()[2] == "20:5:A>C,,REF_MISMATCH"
    assert json.loads((tmp_path / "counts.json").read_text())["scored"] == 3
    with pytest.raises(SystemExit) as stop:
        run_command([*usual, "-o", "out.parquet"])
    assert stop.value.code == 2
    assert "tables of different kinds" in capfd.readouterr().err

"""`genossm ism`: the table holds each substitution's own score, however the region is cut; pictures are pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from genossm.cli.main import run
from genossm.core.errors import IntervalError, OutputExistsError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant
from genossm.variants import ScoringOptions, saturating, saturation, score
from genossm.variants.opening import Request
from genossm.variants.run_ism import LONGEST_PICTURE, IsmOutputs, run_ism

OPTIONS = ScoringOptions(context=64, horizon=8, both_strands=True)
REGION = "20:1,000,201-1,000,230"


@pytest.fixture
def request_for(model_dir: Path, human_fasta: Path) -> Request:
    return Request(str(model_dir), str(human_fasta), OPTIONS)


def test_each_row_is_the_score_of_its_substitution(
    request_for: Request, model: SequenceModel, human_fasta: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    outputs = IsmOutputs(tmp_path / "t.parquet", tmp_path / "m.svg", tmp_path / "l.png")
    assert run_ism(request_for, REGION, outputs, progress=lambda *args: seen.append(args)) == 30
    assert seen == [(30, 30)]
    table = pq.read_table(outputs.table)
    assert table.column_names == ["contig", "pos", "ref", "alt", "GENOSSM_LLR", "GENOSSM_STATUS"]
    rows = table.to_pylist()
    assert [row["pos"] for row in rows[::4]] == list(range(1_000_201, 1_000_231))
    assert [row["alt"] for row in rows] == list("ACGT") * 30
    import genossm.genome

    with genossm.genome.open(human_fasta) as genome:
        for row in rows[:12] + rows[-12:]:
            if row["ref"] == row["alt"]:
                assert row["GENOSSM_LLR"] == 0
                continue
            one = Variant(row["contig"], row["pos"], row["ref"], row["alt"])
            [alone] = score(model, genome, [one], context=64, horizon=8, both_strands=True)
            assert row["GENOSSM_LLR"] == pytest.approx(alone.llr, abs=1e-4)
    assert {row["GENOSSM_STATUS"] for row in rows} == {"OK"}
    assert outputs.heat_map is not None
    assert "<svg" in outputs.heat_map.read_text()
    assert outputs.logo is not None
    assert outputs.logo.read_bytes().startswith(b"\x89PNG")
    facts = json.loads(table.schema.metadata[b"genossm"])
    assert facts["provenance"]["model_digest"] == model.digest()
    assert facts["options"]["both_strands"]


def test_pieces_are_the_whole(model: SequenceModel, human_genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    region = Interval("20", 5_000, 5_023)
    whole = saturation(model, human_genome, region, context=64)
    monkeypatch.setattr(saturating, "_PIECE", 7)
    cut = saturation(model, human_genome, region, context=64)
    assert cut.letters == whole.letters
    assert cut.pos1.tolist() == whole.pos1.tolist()
    np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-4)


def test_several_methods_and_letters_that_are_no_bases(request_for: Request, tmp_path: Path) -> None:
    """Bases up to 1,000,000 of the example are N."""
    from dataclasses import replace

    both = replace(request_for, options=replace(OPTIONS, methods=("llr", "embedding")))
    run_ism(both, "20:999,999-1,000,001", IsmOutputs(tmp_path / "t.parquet"))
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["GENOSSM_STATUS"] for row in rows] == ["NON_ACGT"] * 8 + ["OK"] * 4
    for name in ("GENOSSM_LLR", "GENOSSM_EMB_L2"):
        assert [row[name] is None for row in rows] == [True] * 8 + [False] * 4
        assert [row[name] == 0 for row in rows[8:]] == [row["ref"] == row["alt"] for row in rows[8:]]
    only = replace(request_for, options=replace(OPTIONS, methods=("embedding",)))
    with pytest.raises(UsageError, match="Pictures show log-likelihood ratios"):
        run_ism(only, REGION, IsmOutputs(tmp_path / "o.parquet", tmp_path / "m.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_what_cannot_be(request_for: Request, tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    for outputs, region, error, said in (
        (IsmOutputs(table, tmp_path / "m.gif"), REGION, UsageError, "wanted .png, .svg, .pdf"),
        (IsmOutputs(table, table), REGION, UsageError, "Two outputs are both"),
        (
            IsmOutputs(table, tmp_path / "m.png"),
            f"20:1000001-{1000001 + LONGEST_PICTURE}",
            UsageError,
            "2,000 bases at",
        ),
        (IsmOutputs(table), "20:3,999,990-4,000,001", IntervalError, "ends after contig"),
    ):
        with pytest.raises(error, match=said):
            run_ism(request_for, region, outputs)
    table.touch()
    with pytest.raises(OutputExistsError):
        run_ism(request_for, REGION, IsmOutputs(table))
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_the_table_is_parquet_by_its_name(request_for: Request, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"got the name .*t\.csv"):
        run_ism(request_for, REGION, IsmOutputs(tmp_path / "t.csv"))
    assert not list(tmp_path.iterdir())


def test_the_command(
    model_dir: Path, human_fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(["ism", f"{REGION}(-)", "-f", str(human_fasta), "-m", str(model_dir), "--context", "64", "-o", "t.parquet",
             "--logo", "l.svg"])  # fmt: skip
    assert not stop.value.code
    assert capfd.readouterr() == ("", "genossm ism: 30 bases, 90 substitutions: t.parquet\n")
    # The table is the plus strand's.
    assert pq.read_table("t.parquet").column("pos").to_pylist()[0] == 1_000_201

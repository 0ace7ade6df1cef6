from __future__ import annotations

import json
from pathlib import Path

import pytest

from genossm.models import SequenceModel, StackConfig
from genossm.testing.benchmark_scoring import main

DATA = Path(__file__).parents[2] / "data"


def test_every_row_of_both_kinds_of_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"causal": {}, "masked": {"direction": "bidirectional", "objective": "masked"}}
    models = [
        SequenceModel(StackConfig(8, 1, **choices)).save_pretrained(tmp_path / name)  # type: ignore[arg-type]
        for name, choices in kinds.items()
    ]
    files = ["-f", DATA / "chr20_1-4Mb.fa.gz", "--vcf", DATA / "1000g_chr20_1-4Mb.vcf.gz", "--out", tmp_path / "rows"]
    sizes = ["--context", 16_384, "--variants", 5, "--passes", 1, "--full-horizon", 2, "--memory", 2, 5]
    words = [*files, "-m", models[0], "-m", models[1], *sizes, "--region", "20:1,200,001-1,210,000", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["benchmark", *map(str, words)])
    main()
    header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["model", "what", "variants", "seconds", "variants_s", "ratio", "peak_GB"]
    memory = [["memory", "2"], ["memory", "5"]]
    causal = [["default", "5"], ["full horizon", "2"], ["two full passes", "1"], *memory]
    masked = [["default", "5"], ["two full passes", "1"], *memory]
    assert [line[:3] for line in lines] == [["causal", *row] for row in causal] + [["masked", *row] for row in masked]
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert len(rows) == len(lines)
    assert rows[0]["ratio"] == pytest.approx(rows[0]["per_second"] / rows[2]["per_second"])
    assert all(row["per_second"] == pytest.approx(row["variants"] / row["seconds"]) for row in rows)
    assert rows[0]["measured"]["llr"]["alleles"] >= 1
    assert rows[5]["measured"]["mlm"]["alleles"] >= 1

"""`genossm convert` as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import genossm
from genossm.cli.main import run

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def convert(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        run(["convert", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.parametrize(("fixture", "layout"), [("hf_mamba", "transformers"), ("mamba_ssm_mamba1", "auto")])
def test_writes_a_model_and_prints_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fixture: str, layout: str
) -> None:
    assert convert(GOLDEN / fixture, "-o", tmp_path / "model", "--from", layout) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'model'}\n"
    model = genossm.load(tmp_path / "model")
    assert model.digest()[:12] in printed.err
    assert json.loads((tmp_path / "model" / "provenance.json").read_text())["extra"]["source"] == fixture


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(GOLDEN / "hf_mamba" / "config.json", source)
    torch.save({"a": torch.ones(1)}, source / "pytorch_model.bin")
    cases = {
        "is a pickle": [source, "-o", tmp_path / "out"],
        "tensors do not fit": [source, "-o", tmp_path / "out", "--allow-pickle"],
        "no model directory at": [tmp_path / "absent", "-o", tmp_path / "out"],
        "does not exist": [GOLDEN / "hf_mamba", "-o", tmp_path / "no" / "folder"],
        "exists already": [GOLDEN / "hf_mamba", "-o", source],
    }
    for message, arguments in cases.items():
        assert convert(*arguments) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err
        assert printed.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_unknown_layout_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(GOLDEN / "hf_mamba", "-o", tmp_path / "out", "--from", "jax") == 2
    assert "'jax' is not one of" in capsys.readouterr().err

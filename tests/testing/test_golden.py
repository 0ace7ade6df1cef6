from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from genossm.core.errors import InputFileError
from genossm.testing.golden import differences, table

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def test_every_fixture_has_a_row_and_only_shared_strands_a_residual() -> None:
    header, *rows = [line.split("\t") for line in table(GOLDEN)]
    assert header == ["fixture", "logits", "hidden_states", "strands"]
    assert [row[0] for row in rows] == sorted(path.parent.name for path in GOLDEN.glob("*/io.safetensors"))
    for name, *figures in rows:
        assert (figures[2] != "-") == name.startswith("caduceus_ps")
        assert all(float(figure) < 1e-4 for figure in figures if figure != "-")


def test_a_difference_is_shown_as_large_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "caduceus_ps"
    shutil.copytree(GOLDEN / "caduceus_ps", folder)
    outputs = load_file(folder / "io.safetensors")
    outputs["logits"][1, 5, 3] += 0.25
    save_file(outputs, folder / "io.safetensors")
    assert differences(folder)["logits"] == pytest.approx(0.25, abs=1e-4)


def test_a_folder_without_fixtures_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"no folder with an io\.safetensors"):
        list(table(tmp_path))

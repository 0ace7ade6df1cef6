"""`genossm evaluate bases` through the installed command."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from genossm.cli.main import run
from genossm.models import SequenceModel, StackConfig

PROGRAM = Path(sysconfig.get_path("scripts")) / "genossm"
REGIONS = ("--train", "x:1-3,000", "--validation", "x:3,001-4,000", "--test", "x:4,001-6,000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    letters = np.random.default_rng(0).choice(list("ACGT"), 6000, p=[0.4, 0.1, 0.2, 0.3])
    (folder / "toy.fa").write_text(">x\n" + "".join(letters) + "\n")
    torch.manual_seed(0)
    SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4)).save_pretrained(folder / "model")
    return folder


def bases(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "evaluate", "bases", *arguments], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_table_on_stdout_and_the_same_figures_in_the_file(folder: Path) -> None:
    done = bases(
        folder, "-m", "model", "-g", "toy.fa", *REGIONS, "--markov", "0,3", "--context", "128", "-o", "bases.json"
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((folder / "bases.json").read_text())
    for method in content["methods"]:
        line = next(line for line in done.stdout.splitlines() if line.startswith(method["name"]))
        assert f"{method['bits_per_base']:.4f}" in line
    assert done.stdout.splitlines()[-1] == content["sentence"]
    assert content["context"] == 128
    assert content["provenance"]["command"].startswith("genossm evaluate bases")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "absent", "-g", "toy.fa", *REGIONS], 1, "absent"),
        (["-m", "model", "-g", "absent.fa", *REGIONS], 1, "absent.fa"),
        (["-m", "model", "-g", "toy.fa", *REGIONS[:5], "y:1-10"], 1, "y"),
        (["-m", "model", "-g", "toy.fa", *REGIONS[:5], "x:3,900-5,000"], 1, "overlap by 101 bases"),
        (["-m", "model", "-g", "toy.fa", *REGIONS, "--context", "7"], 1, "cannot be halved"),
        (["-m", "model", "-g", "toy.fa", *REGIONS, "--markov", "13"], 1, "within 0..12"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        run(["evaluate", "bases", *arguments, "-o", "new.json"])
    assert ended.value.code == code
    check_refusal(capsys.readouterr().err, message)
    assert sorted(folder.iterdir()) == before


def test_the_installed_command_refuses_alike(folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = bases(folder, "-m", "model", "-g", "toy.fa", *REGIONS[:5], "x:3,900-5,000", "-o", "new.json")
    assert done.returncode == 1
    check_refusal(done.stderr, "overlap by 101 bases")
    assert sorted(folder.iterdir()) == before


def check_refusal(stderr: str, message: str) -> None:
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("genossm: error: ")
    assert message in stderr


@pytest.mark.parametrize("option", [("--markov", "0,x"), ("--context", "long")])
def test_an_option_that_cannot_be_read_is_a_usage_error(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["evaluate", "bases", "-m", "model", "-g", "toy.fa", *REGIONS, *option, "-o", "new.json"])
    assert ended.value.code == 2
    assert "wanted" in capsys.readouterr().err

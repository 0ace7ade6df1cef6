"""What works without the extra `train`, and what the rest says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKED = "import sys; sys.modules['lightning'] = sys.modules['lightning.pytorch'] = None\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, timeout=120)


def test_windows_and_datasets_need_no_lightning() -> None:
    done = run("import genossm.data as d; d.WindowDataset, d.RandomWindows, d.CausalCollator, d.Splits")
    assert done.returncode == 0, done.stderr


def test_training_without_lightning_says_how_to_get_it(tmp_path: Path, human_fasta: Path) -> None:
    settings = [f"genome.path={human_fasta}", f"output.directory={tmp_path / 'run'}"]
    arguments = ["train", "--config", str(ROOT / "configs/train/demo.yaml")]
    for setting in settings:
        arguments += ["--set", setting]
    done = run(f"from genossm.cli.main import run; run({arguments!r})")
    assert done.returncode == 1
    assert done.stderr.startswith("genossm: error: Training needs Lightning")
    assert "pip install 'genossm[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

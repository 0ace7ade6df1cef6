"""A run in two parts on a GPU is the run in one piece, bit for bit, across a change of the window's length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
BOTH = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}


@pytest.mark.parametrize("kind", [{}, BOTH], ids=["causal", "both strands"])
def test_two_parts_are_one_run(kind: dict[str, Any], tmp_path: Path) -> None:
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 400_000))
    (tmp_path / "toy.fa").write_text(f">toy\n{letters}\n")
    train(tmp_path, "one", kind, 8)
    train(tmp_path, "two", kind, 3)
    train(tmp_path, "two", kind, 8, "--resume")
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def train(folder: Path, name: str, kind: dict[str, Any], steps: int, *options: str) -> None:
    config = {
        "genome": {"path": "toy.fa"},
        "splits": {"train": "toy:1-300,000", "validation": "toy:300,001-400,000"},
        "data": {"window": 65_536, "batch": 1, "lengths": [{"window": 4096, "batch": 8, "steps": 5}]},
        "model": {"d_model": 64, "n_layer": 2, "d_conv": 16, **kind},
        "schedule": {"kind": "constant", "warmup_steps": 2},
        "run": {"max_steps": steps, "validate_every": 100, "log_every": 1, "precision": "bf16"},
        "output": {"directory": name},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "genossm", "train", "--config", f"{name}.yaml", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-5000:]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)
    return checkpoint["state_dict"]

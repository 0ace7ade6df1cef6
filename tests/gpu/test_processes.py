"""`genossm train` on two GPUs against one: weights on each (DDP), weights spread (FSDP), windows read together."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from genossm.models import load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than 2 CUDA devices"),
]
BOTH = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}
TOGETHER = {"devices": 2, "context_parallel": 2}
RUNS: dict[str, dict[str, Any]] = {
    "DDP": {"devices": 2},
    "FSDP": {"devices": 2, "strategy": "fsdp", "recompute": "projections"},
    "context": TOGETHER,
    "context and FSDP": {**TOGETHER, "strategy": "fsdp", "recompute": "cheap"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 200_000))
    (folder / "toy.fa").write_text(f">toy\n{letters}\n")
    for kind in ("causal", "both"):
        train(folder, f"{kind}, one GPU", kind, {})
    return folder


def train(folder: Path, name: str, kind: str, run: dict[str, Any], *options: str) -> None:
    shape = {"d_model": 64, "n_layer": 2, "dt_min": 1e-4}
    config = {
        "genome": {"path": "toy.fa"},
        "splits": {"train": "toy:1-160,000", "validation": "toy:160,001-200,000"},
        "data": {"window": 4_001, "batch": 4},
        "model": shape if kind == "causal" else {**shape, **BOTH},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "run": {"max_steps": 12, "validate_every": 6, "checkpoint_every": 6, "log_every": 2, "precision": "32", **run},
        "output": {"directory": name},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "genossm", "train", "--config", f"{name}.yaml", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.strip() == f"{name}/model"


def rows(folder: Path, name: str) -> dict[tuple[int, bool], dict[str, str]]:
    with open(folder / name / "metrics.csv", newline="") as handle:
        return {(int(row["step"]), bool(row["validation_bits_per_base"])): row for row in csv.DictReader(handle)}


@pytest.mark.parametrize("kind", ["causal", "both"])
@pytest.mark.parametrize("name", RUNS)
def test_two_gpus_learn_what_one_does(folder: Path, name: str, kind: str) -> None:
    train(folder, f"{kind}, {name}", kind, RUNS[name])
    found = rows(folder, f"{kind}, {name}")
    for which, alone in rows(folder, f"{kind}, one GPU").items():
        for column in ("train_bits_per_base", "validation_bits_per_base", "gradient_norm"):
            if alone[column]:
                assert float(found[which][column]) == pytest.approx(float(alone[column]), rel=2e-3)
    assert load(folder / f"{kind}, {name}" / "model").num_parameters() > 0


def test_one_gpu_goes_on_with_what_two_left_and_two_with_what_one_left(folder: Path) -> None:
    train(folder, "causal, moving", "causal", {**RUNS["FSDP"], "max_steps": 4})
    train(folder, "causal, moving", "causal", {"recompute": "auto", "max_steps": 8}, "--resume")
    train(folder, "causal, moving", "causal", RUNS["context and FSDP"], "--resume")
    found = rows(folder, "causal, moving")
    for which, alone in rows(folder, "causal, one GPU").items():
        if alone["train_bits_per_base"]:
            expected = float(alone["train_bits_per_base"])
            assert float(found[which]["train_bits_per_base"]) == pytest.approx(expected, rel=2e-3)

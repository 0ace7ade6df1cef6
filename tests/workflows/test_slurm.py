"""The script for Slurm where there is none: its syntax, the command that it gives each task, and when it requeues."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from genossm.cli.train import command
from genossm.training.config import load_train_config

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflows" / "slurm" / "train.sbatch"
CONFIG = ROOT / "configs" / "train" / "demo.yaml"
# What stands for Slurm here: srun starts the command once a task, scontrol writes down what it is asked.
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
worst=0
for ((task = 0; task < SLURM_NNODES * SLURM_NTASKS_PER_NODE; task++)); do
    SLURM_PROCID=$task "$@" || worst=$?
done
exit $worst
"""
GENOSSM = """#!/bin/bash
printf '%s\\n' "$SLURM_PROCID $OMP_NUM_THREADS" >> "$SEEN/tasks"
printf '%s\\n' "$@" > "$SEEN/arguments"
exit "$ENDS_WITH"
"""
SCONTROL = """#!/bin/bash
echo "$@" > "$SEEN/asked"
"""


def run(folder: Path, *arguments: str, ends_with: int = 0) -> subprocess.CompletedProcess[str]:
    for name, text in (("srun", SRUN), ("genossm", GENOSSM), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "77", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}
    variables = os.environ | job | {"SEEN": str(folder), "ENDS_WITH": str(ends_with)}
    variables["PATH"] = f"{folder}:{variables['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_slurm_starts_one_task_a_gpu_and_warns_before_the_end() -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SCRIPT.read_text(), flags=re.MULTILINE))
    # Lightning takes the number of tasks on a node for that of its devices.
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("USR1@")
    assert "requeue" in options


def test_every_task_gets_a_command_that_fits_the_job(tmp_path: Path) -> None:
    given = ["--set", "run.context_parallel=4", "--set", "data.batch=16"]
    assert run(tmp_path, str(CONFIG), *given).returncode == 0
    assert (tmp_path / "tasks").read_text().splitlines() == [f"{task} 8" for task in range(8)]
    subcommand, *arguments = (tmp_path / "arguments").read_text().splitlines()
    assert subcommand == "train"
    parsed = command.make_context("train", arguments).params
    assert parsed["resume"] == "auto"
    config = load_train_config(parsed["config_path"], parsed["settings"])
    assert (config.run.nodes, config.run.devices, config.run.ranks, config.run.readers) == (2, 4, 8, 2)
    assert yaml.safe_load(CONFIG.read_text())["output"]["directory"] == str(config.output.directory)


@pytest.mark.parametrize(
    ("ends_with", "code", "requeued"), [(0, 0, False), (138, 0, True), (143, 143, False), (1, 1, False)]
)
def test_it_requeues_after_the_signal_alone(tmp_path: Path, ends_with: int, code: int, requeued: bool) -> None:
    assert run(tmp_path, str(CONFIG), ends_with=ends_with).returncode == code
    assert (tmp_path / "asked").exists() is requeued
    if requeued:
        assert (tmp_path / "asked").read_text() == "requeue 77\n"


def test_without_a_configuration_it_says_how_to_call_it(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "CONFIG.yaml" in done.stderr
    assert not (tmp_path / "tasks").exists()

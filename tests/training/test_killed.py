"""A run killed outright, and resumed, ends as if nothing had happened.

A few moments here; many with GENOSSM_KILLS=50 in the environment.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from genossm.models import load

COMMAND = Path(sys.executable).parent / "genossm"
KILLS = int(os.environ.get("GENOSSM_KILLS", "1"))
STEPS = 60 + 40 * KILLS
# A run of many moments is long, and a machine may be shared.
PATIENCE = 120.0 + 30.0 * KILLS


def numbers(directory: Path) -> list[tuple[str, ...]]:
    """The log without what the clock wrote."""
    kept = ("step", "tokens", "learning_rate", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    with open(directory / "metrics.csv", newline="") as handle:
        return [tuple(row[column] for column in kept) for row in csv.DictReader(handle)]


def last_step(directory: Path) -> int:
    """The last step whose row is whole; 0 while there is none."""
    try:
        steps = [line.split(",")[0] for line in (directory / "metrics.csv").read_text().splitlines()[1:]]
    except FileNotFoundError:
        return 0
    return int(steps[-1]) if steps and steps[-1].isdigit() else 0


def start(config: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([COMMAND, "train", "--config", config, *arguments], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()


def kill_at(process: subprocess.Popen[bytes], directory: Path, step: int, delay: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while last_step(directory) < step:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.timeout(300 + 60 * KILLS)
def test_the_curve_goes_on_as_if_nothing_had_happened(mapping: dict[str, Any], tmp_path: Path) -> None:
    mapping["run"] |= {"max_steps": STEPS, "validate_every": 16, "checkpoint_every": 5, "log_every": 2}
    paths = {}
    for name in ("whole", "killed"):
        mapping["output"]["directory"] = str(tmp_path / name)
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(mapping))
    finish(start(paths["whole"]))

    chance = random.Random(f"{KILLS} moments")
    directory = tmp_path / "killed"
    begun: list[int] = []
    for number in range(KILLS):
        process = start(paths["killed"], *(["--resume"] if number else []))
        # Past the next checkpoint, so that the run gets on, then at any point of a step, a validation, a save.
        kill_at(process, directory, last_step(directory) + 8 + chance.randrange(20), chance.random() * 0.05)
        begun.append(last_step(directory))
        assert not (directory / "model").exists()
    assert begun == sorted(begun)
    assert begun[-1] < STEPS
    finish(start(paths["killed"], "--resume"))
    assert numbers(directory) == numbers(tmp_path / "whole")
    assert load(directory / "model").digest() == load(tmp_path / "whole" / "model").digest()

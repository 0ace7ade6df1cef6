"""A toy genome with structure to learn, and a run small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genossm.core.strict import from_mapping
from genossm.training.config import TrainConfig

Overrides = dict[str, Any]


@pytest.fixture
def toy_fasta(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    motif = "".join(rng.choice(list("ACGT"), 40))
    letters = (motif + "".join(rng.choice(list("ACGT"), 20)) for _ in range(60))
    path = tmp_path / "toy.fa"
    path.write_text(">toy\n" + "".join(letters) + "\n")
    return path


@pytest.fixture
def mapping(toy_fasta: Path, tmp_path: Path) -> Overrides:
    """A whole configuration as plain mappings; tests change single keys."""
    return {
        "genome": {"path": str(toy_fasta)},
        "splits": {"train": "toy:1-2,400", "validation": "toy:2,401-3,000", "test": "toy:3,001-3,600"},
        "data": {"window": 32, "batch": 4, "validation_window": 100},
        "model": {"d_model": 8, "n_layer": 2, "d_state": 4},
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup_steps": 2},
        "run": {"max_steps": 12, "validate_every": 4, "checkpoint_every": 3, "log_every": 2, "seed": 5},
        "output": {"directory": str(tmp_path / "run")},
    }


@pytest.fixture
def masked(mapping: Overrides) -> Overrides:
    """The same run for a model that reads both ways and both strands."""
    model = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}
    return {**mapping, "model": {**mapping["model"], **model}}


@pytest.fixture
def make_config(mapping: Overrides) -> Callable[..., TrainConfig]:
    """Build the configuration with `section__key=value` changes."""

    def make(**changes: Any) -> TrainConfig:
        for key, value in changes.items():
            section, _, name = key.partition("__")
            mapping[section][name] = value
        return from_mapping(TrainConfig, mapping)

    return make

"""Runs of two processes against the same runs of one: what is learnt, written, printed and resumed."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import yaml

from genossm.core.strict import from_mapping
from genossm.models import load
from genossm.training import train
from genossm.training.config import TrainConfig

Mapping = dict[str, Any]
RANKS = 2
# Steps on windows with N, so that the processes' shares of targets differ.
RUNS: dict[str, Mapping] = {
    "ddp": {"run": {"devices": 2}},
    "ddp in parts, to be resumed": {"run": {"devices": 2, "max_steps": 5}, "data": {"micro_batch": 1}},
    "context": {"run": {"devices": 2, "context_parallel": 2}, "data": {"window": 33}},
    "context of a masked model": {"run": {"devices": 2, "context_parallel": 2}, "data": {"window": 33}},
    "an end by the clock": {"run": {"devices": 2, "max_minutes": 1e-6}},
}


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def changed(mapping: Mapping, changes: Mapping, directory: Path) -> TrainConfig:
    merged = {section: {**value} for section, value in mapping.items()}
    for section, values in changes.items():
        merged[section] |= values
    merged["output"] = {"directory": str(directory)}
    return from_mapping(TrainConfig, merged)


def work(rank: int, runs: dict[str, tuple[Mapping, Mapping]], directory: Path, ports: list[int]) -> None:
    """As torchrun starts it."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_RUN_ID": "test",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    found = {}
    for port, (name, (mapping, changes)) in zip(ports, runs.items(), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        found[name] = train(changed(mapping, changes, directory / name))
    torch.save({name: result.validation_bits for name, result in found.items()}, directory / f"{rank}.pt")


@pytest.fixture
def of_processes(mapping: Mapping) -> Mapping:
    with open(mapping["genome"]["path"]) as file:
        name, letters = file.read().split()
    spotted = "".join("N" if place % 97 < 12 else base for place, base in enumerate(letters))
    Path(mapping["genome"]["path"]).write_text(f"{name}\n{spotted}\n")
    mapping["schedule"] = {"kind": "constant", "warmup_steps": 0}
    mapping["data"] |= {"max_n_fraction": 0.9}
    mapping["run"] |= {"accelerator": "cpu", "max_steps": 8, "watch_every": 2}
    return mapping


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def assert_same_weights(found: Path, expected: Path) -> None:
    one, other = weights(found / "checkpoints/last.ckpt"), weights(expected / "checkpoints/last.ckpt")
    assert one.keys() == other.keys()
    for name, weight in other.items():
        torch.testing.assert_close(one[name], weight, rtol=1e-3, atol=2e-5, msg=name)


def assert_same_rows(found: Path, expected: Path) -> None:
    for row, alone in zip(rows(found), rows(expected), strict=True):
        assert (row["step"], row["tokens"]) == (alone["step"], alone["tokens"])
        for column in ("train_bits_per_base", "validation_bits_per_base", "gradient_norm"):
            assert bool(row[column]) == bool(alone[column])
            if row[column]:
                assert float(row[column]) == pytest.approx(float(alone[column]), rel=1e-4)


def test_two_processes_learn_what_one_does(of_processes: Mapping, masked: Mapping, tmp_path: Path) -> None:
    masked = {**of_processes, "model": masked["model"]}
    runs = {name: (masked if "masked" in name else of_processes, changes) for name, changes in RUNS.items()}
    mp.spawn(work, args=(runs, tmp_path, free_ports(len(runs))), nprocs=RANKS)
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt")
    assert len(rows(tmp_path / "an end by the clock")) > 0

    alone = {"run": {"devices": 1, "context_parallel": 1}}
    for name in ("ddp", "context", "context of a masked model"):
        mapping, changes = runs[name]
        whole = train(changed(mapping, {**changes, **alone}, tmp_path / f"{name}, alone"))
        assert_same_weights(tmp_path / name, tmp_path / f"{name}, alone")
        assert_same_rows(tmp_path / name, tmp_path / f"{name}, alone")
        assert load(tmp_path / name / "model").num_parameters() == load(whole.model).num_parameters()

    # What two processes left goes on in one.
    name = "ddp in parts, to be resumed"
    train(changed(of_processes, {**alone, "data": {"micro_batch": 1}}, tmp_path / name), resume=True)
    assert_same_weights(tmp_path / name, tmp_path / "ddp, alone")


def test_the_command_starts_the_processes_itself(of_processes: Mapping, tmp_path: Path) -> None:
    of_processes["run"] |= {"devices": 2, "context_parallel": 2, "max_steps": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(of_processes))
    command = [str(Path(sys.executable).with_name("genossm")), "train", "--config", "run.yaml"]
    variables = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    # The path once, from the first process alone.
    assert done.stdout == f"{of_processes['output']['directory']}/model\n"
    assert load(done.stdout.strip()).num_parameters() > 0
    again = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "exists already" in again.stderr

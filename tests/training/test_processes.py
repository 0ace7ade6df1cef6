"""Runs of two processes against the same runs of one: what is learnt, written, printed and resumed."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from lightning.pytorch import Callback, Trainer

from genossm.core.errors import RunInterruptedError
from genossm.core.strict import from_mapping
from genossm.models import load
from genossm.training import fit as fit_module
from genossm.training import train
from genossm.training.config import TrainConfig

Mapping = dict[str, Any]
RANKS = 2
TWO, CONTEXT, ONE = {"devices": 2}, {"devices": 2, "context_parallel": 2}, {"devices": 1}
SHORT, WHOLE = {"max_steps": 5}, {"max_steps": 8}
IN_PARTS, UNEVEN = {"micro_batch": 1}, {"window": 33}
FSDP = {"strategy": "fsdp", "recompute": "projections"}


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


class SignalOfOne(Callback):
    """After three steps the second process is told to stop, and the first one is not."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 3 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def work(rank: int, runs: dict[str, tuple[Mapping, Mapping]], directory: Path, ports: list[int]) -> None:
    """As srun starts it."""
    torch.set_num_threads(1)
    job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "test", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    tasks = {"SLURM_NTASKS": str(RANKS), "SLURM_NTASKS_PER_NODE": str(RANKS)}
    task = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
    os.environ |= job | tasks | task | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    *others, last = runs
    found: dict[str, Any] = {}
    for port, name in zip(ports, others):
        os.environ["MASTER_PORT"] = str(port)
        mapping, changes = runs[name]
        result = train(changed(mapping, changes, directory / name), resume="resumed" in name)
        found[name] = result.validation_bits

    os.environ["MASTER_PORT"] = str(ports[-1])
    build = fit_module.build_trainer
    fit_module.build_trainer = lambda config, callbacks: build(config, [*callbacks, SignalOfOne()])
    mapping, changes = runs[last]
    with pytest.raises(RunInterruptedError) as raised:
        train(changed(mapping, changes, directory / last))
    found[last] = raised.value.exit_code
    torch.save(found, directory / f"{rank}.pt")


@pytest.fixture
def of_processes(mapping: Mapping) -> Mapping:
    with open(mapping["genome"]["path"]) as file:
        name, letters = file.read().split()
    # Windows with N, so that the processes have different numbers of targets.
    spotted = "".join("N" if place % 97 < 12 else base for place, base in enumerate(letters))
    Path(mapping["genome"]["path"]).write_text(f"{name}\n{spotted}\n")
    mapping["schedule"] = {"kind": "constant", "warmup_steps": 0}
    mapping["data"] |= {"max_n_fraction": 0.9}
    mapping["run"] |= {"accelerator": "cpu", "watch_every": 2, "validate_every": 8}
    return mapping


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def rows(directory: Path) -> dict[tuple[int, bool], dict[str, str]]:
    """By step, and whether they are of a validation."""
    with open(directory / "metrics.csv", newline="") as handle:
        return {(int(row["step"]), bool(row["validation_bits_per_base"])): row for row in csv.DictReader(handle)}


def assert_same_learning(found: Path, expected: Path) -> None:
    one, other = weights(found / "checkpoints/last.ckpt"), weights(expected / "checkpoints/last.ckpt")
    assert one.keys() == other.keys()
    for name, weight in other.items():
        torch.testing.assert_close(one[name], weight, rtol=1e-3, atol=2e-5, msg=name)
    table = rows(found)
    for which, alone in rows(expected).items():
        assert table[which]["tokens"] == alone["tokens"]
        for column in ("train_bits_per_base", "validation_bits_per_base", "gradient_norm"):
            assert bool(table[which][column]) == bool(alone[column])
            if alone[column]:
                assert float(table[which][column]) == pytest.approx(float(alone[column]), rel=1e-4)


def test_two_processes_learn_what_one_does(of_processes: Mapping, masked: Mapping, tmp_path: Path) -> None:
    masked = {**of_processes, "model": masked["model"]}

    def alone(name: str, mapping: Mapping, run: Mapping, data: Mapping | None = None, *, resume: bool = False) -> Path:
        train(changed(mapping, {"run": ONE | run, "data": data or {}}, tmp_path / name), resume=resume)
        return tmp_path / name

    resumed = alone("resumed with FSDP", masked, SHORT, UNEVEN)
    runs = {
        "FSDP": (of_processes, {"run": TWO | SHORT | FSDP}),
        "context": (of_processes, {"run": CONTEXT | WHOLE, "data": UNEVEN}),
        resumed.name: (masked, {"run": CONTEXT | WHOLE | FSDP, "data": UNEVEN}),
        "clock": (of_processes, {"run": TWO | {"max_steps": None, "max_minutes": 1e-6}}),
        "DDP": (of_processes, {"run": TWO | WHOLE, "data": IN_PARTS}),
    }
    mp.spawn(work, args=(runs, tmp_path, free_ports(len(runs))), nprocs=RANKS)
    # Each process has the same result, and ends with the signal that one of them got.
    results = torch.load(tmp_path / "0.pt")
    assert torch.load(tmp_path / "1.pt") == results
    assert results["DDP"] == 128 + signal.SIGUSR1
    assert max(rows(tmp_path / "clock")) == (1, True)
    # What two processes left goes on in one.
    for name, data in (("DDP", IN_PARTS), ("FSDP", None)):
        alone(name, of_processes, WHOLE, data, resume=True)

    expected = alone("alone", of_processes, WHOLE)
    for name in ("DDP", "FSDP"):
        assert_same_learning(tmp_path / name, expected)
    assert_same_learning(tmp_path / "context", alone("whole windows", of_processes, WHOLE, UNEVEN))
    assert_same_learning(resumed, alone("whole masked windows", masked, WHOLE, UNEVEN))
    assert load(resumed / "model").num_parameters() > 0


def test_the_command_starts_the_processes_itself(of_processes: Mapping, tmp_path: Path) -> None:
    of_processes["run"] |= {"devices": 2, "context_parallel": 2, "max_steps": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(of_processes))
    command = [str(Path(sys.executable).with_name("genossm")), "train", "--config", "run.yaml"]
    variables = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    # The path once, from the first process alone.
    assert done.stdout == f"{of_processes['output']['directory']}/model\n"
    assert load(done.stdout.strip()).num_parameters() > 0

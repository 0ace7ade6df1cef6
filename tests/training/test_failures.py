"""What the machine does to a run: a full disk, a loader process that dies, memory that is full."""

from __future__ import annotations

import csv
import errno
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import genossm.models.memory as memory
import genossm.training.failures as failures
import genossm.training.fit as fit_module
from genossm.core.errors import IntervalError, MemoryEstimateError, OutputError, WorkerDiedError
from genossm.core.strict import from_mapping
from genossm.models import load
from genossm.training import TrainConfig, train
from genossm.training.estimate import estimate
from genossm.training.module import LanguageModelTraining

Make = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def numbers(directory: Path) -> list[tuple[str, ...]]:
    kept = ("step", "tokens", "learning_rate", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    with open(directory / "metrics.csv", newline="") as handle:
        return [tuple(row[column] for column in kept) for row in csv.DictReader(handle)]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to write any file past `size`, as a disk does that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_never_leaves_half_a_checkpoint(mapping: dict[str, Any], tmp_path: Path) -> None:
    train(from_mapping(TrainConfig, mapping))
    whole = tmp_path / "run"
    files = [path for path in whole.rglob("*") if path.is_file()]
    checkpoint = (whole / "checkpoints/last.ckpt").stat().st_size
    weights = (whole / "checkpoints/best/model.safetensors").stat().st_size
    assert max(path.stat().st_size for path in files) == checkpoint
    mapping["output"]["directory"] = str(tmp_path / "full")
    config = from_mapping(TrainConfig, mapping)
    # A byte too few for a checkpoint, half of one, and a byte too few for the model of the first validation.
    for size in (checkpoint - 1, checkpoint // 2, weights - 1):
        with (
            files_of_at_most(size),
            pytest.raises(OutputError, match=r"Cannot write to .*full: File too large\..*Make r"),
        ):
            train(config, force=True)
        left = {path.name for path in (tmp_path / "full").rglob("*")}
        assert not any(name.startswith(".tmp-") for name in left), left
        assert "last.ckpt" not in left
    # The disk fills up while a run goes: the checkpoint of before stays whole.
    train(from_mapping(TrainConfig, {**mapping, "run": {**mapping["run"], "max_steps": 6}}), force=True)
    with files_of_at_most(checkpoint - 1), pytest.raises(OutputError):
        train(config, resume=True)
    kept = torch.load(tmp_path / "full/checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 6


def test_a_run_goes_on_once_there_is_room(mapping: dict[str, Any], tmp_path: Path) -> None:
    mapping["run"]["schedule"] = None
    del mapping["run"]["schedule"]
    mapping["schedule"] = {"kind": "constant"}
    train(from_mapping(TrainConfig, mapping))
    size = (tmp_path / "run/metrics.csv").stat().st_size
    checkpoint = (tmp_path / "run/checkpoints/last.ckpt").stat().st_size
    assert size < checkpoint
    mapping["output"]["directory"] = str(tmp_path / "full")
    config = from_mapping(TrainConfig, mapping)

    class Fill(Callback):
        """From step 7 on nothing can be written."""

        def on_train_batch_start(
            self,
            trainer: Trainer,
            pl_module: LightningModule,  # noqa: ARG002
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            if trainer.global_step == 7:
                resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    build = fit_module.build_trainer
    fit_module.build_trainer = lambda config, callbacks: build(config, [*callbacks, Fill()])
    try:
        with pytest.raises(OutputError, match="What was written before is whole"):
            train(config)
    finally:
        fit_module.build_trainer = build
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train(config, resume=True)
    assert numbers(tmp_path / "full") == numbers(tmp_path / "run")
    assert load(tmp_path / "full/model").digest() == load(tmp_path / "run/model").digest()


def test_a_loader_process_that_is_killed_is_told_with_what_to_do(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kill(Callback):
        def on_train_batch_start(
            self,
            trainer: Trainer,
            pl_module: LightningModule,  # noqa: ARG002
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            if trainer.global_step == 3:
                # What a batch system sends to everyone does not end a worker; what the kernel does when memory is full
                # does.
                (worker,) = [child for child in multiprocessing.active_children() if child.pid is not None]
                os.kill(worker.pid or 0, signal.SIGINT)
                os.kill(worker.pid or 0, signal.SIGTERM)
                worker.join(0.5)
                assert worker.is_alive()
                os.kill(worker.pid or 0, signal.SIGKILL)
                worker.join(30)

    build = fit_module.build_trainer
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Kill()]))
    with pytest.raises(WorkerDiedError, match=r"A loader process \(pid \d+\) .*Lower data\.workers \(it is 1; 0 reads"):
        train(make_config(data__workers=1))
    monkeypatch.setattr(fit_module, "build_trainer", build)
    # Saved before that step, and continued by a run without workers.
    assert train(make_config(data__workers=0), resume=True).steps == 12


def test_an_error_of_ours_in_a_loader_process_comes_without_its_traceback(make_config: Make, tmp_path: Path) -> None:
    text = (
        "Caught IntervalError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\ngenossm.core.errors.IntervalError: toy: wanted a base, got none.\n'
    )
    with pytest.raises(IntervalError) as caught, failures.readable_failures(make_config(), CPU, tmp_path):
        raise IntervalError(text)
    assert str(caught.value) == "toy: wanted a base, got none."


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ..."), {}),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you"), {}),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), {"data__segment": 100_000}),
    ],
    ids=["gpu", "cpu", "segments"],
)
def test_memory_that_is_full_names_the_length_that_fits(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, error: Exception, changes: dict[str, Any], tmp_path: Path
) -> None:
    config = make_config(data__window=200_000, data__batch=8, data__validation_window=100, **changes)
    room = 300_000_000
    monkeypatch.setattr(failures, "available_bytes", lambda _: room)
    with pytest.raises(MemoryEstimateError) as caught, failures.readable_failures(config, CPU, tmp_path):
        raise error
    message = str(caught.value)
    name = "segment" if changes else "window"
    assert message.startswith("cpu ran out of memory")
    assert ("asked for 2.50 GiB more" in message) == isinstance(error, torch.OutOfMemoryError)
    fits = re.search(rf"a {name} of ([\d,]+) bases would \(data\.{name}\)", message)
    assert fits is not None
    length = int(fits.group(1).replace(",", ""))
    changed = {"data__segment": length} if changes else {"data__window": length}
    assert 0.85 * room < estimate(make_config(**changed), CPU).peak <= room
    fewer = re.search(rf"at this {name} (\d) at once \(data\.micro_batch\)", message)
    assert fewer is not None
    changed = {"data__segment": 100_000} if changes else {"data__window": 200_000}
    assert estimate(make_config(data__micro_batch=int(fewer.group(1)), **changed), CPU).peak <= room


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_a_pass_that_cannot_fit_names_the_keys_of_training(
    mapping: dict[str, Any], masked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    monkeypatch.setattr(memory, "_SMALL", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1000)
    with pytest.raises(
        MemoryEstimateError, match=r"4 x 3\d tokens need about .* free\. Set data\.micro_batch"
    ) as caught:
        train(from_mapping(TrainConfig, mapping if direction == "causal" else masked))
    message = str(caught.value)
    assert "data.micro_tokens" in message
    assert "genossm train --estimate" in message
    assert "genossm.inference" not in message
    assert ("data.segment" in message) == (direction == "causal")


def test_memory_that_something_else_took_is_told_so(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(LanguageModelTraining, "training_step", full)
    # At the first step there is nothing to resume.
    with pytest.raises(MemoryEstimateError, match=r"so something else took it: another program.*anew with --force"):
        train(make_config())


def test_a_run_with_a_checkpoint_is_told_to_resume(make_config: Make, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for said in ("start anew with --force", "--resume goes on from the last checkpoint"):
        with pytest.raises(OutputError, match=said), failures.readable_failures(make_config(), CPU, tmp_path):
            raise full
        (tmp_path / "last.ckpt").touch()


def test_other_errors_stay_what_they_are(make_config: Make, tmp_path: Path) -> None:
    for error in (RuntimeError("a bug of ours"), OSError(2, "No such file"), OutputError("said well")):
        with pytest.raises(type(error)) as caught, failures.readable_failures(make_config(), CPU, tmp_path):
            raise error
        assert caught.value is error

"""Runs in parts: stopped by time or a signal between two steps, continued as if nothing had happened."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

import genossm.training.fit as fit_module
from genossm.cli.main import run
from genossm.core.errors import (
    ConfigError,
    InputFileError,
    NumericsError,
    OutputExistsError,
    RunInterruptedError,
    UsageError,
)
from genossm.core.strict import from_mapping
from genossm.models import load
from genossm.training import TrainConfig, TrainResult, train

Make = Callable[..., TrainConfig]


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def numbers(directory: Path) -> list[tuple[str, ...]]:
    kept = ("step", "tokens", "learning_rate", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    return [tuple(row[column] for column in kept) for row in rows(directory)]


def same_run(one: Path, other: Path) -> None:
    assert numbers(one) == numbers(other)
    assert load(one / "model").digest() == load(other / "model").digest()


def test_legs_are_the_run_in_one_piece(mapping: dict[str, Any], tmp_path: Path) -> None:
    mapping["run"] |= {"precision": "bf16", "max_steps": 7}
    train(from_mapping(TrainConfig, mapping))
    # So short that every leg is one step.
    mapping["run"]["max_minutes"] = 1e-9
    mapping["output"]["directory"] = str(tmp_path / "legs")
    config = from_mapping(TrainConfig, mapping)
    legs: list[TrainResult] = []
    while not legs or not legs[-1].finished:
        legs.append(train(config, resume="auto"))
    assert [leg.steps for leg in legs] == list(range(1, 8))
    # The first validation is after step 4: before it there is no best model, after it there is.
    assert [leg.validation_bits < 3 for leg in legs] == [False] * 3 + [True] * 4
    same_run(tmp_path / "legs", tmp_path / "run")


def test_a_leg_says_where_it_stopped_and_leaves_the_best_model_so_far(
    mapping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mapping["run"] |= {"max_minutes": 1e-9, "validate_every": 2}
    Path("run.yaml").write_text(yaml.safe_dump(mapping))
    for step in (1, 2):
        with pytest.raises(SystemExit) as ended:
            run(["train", "--config", "run.yaml", "--resume", "auto"])
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        assert err.splitlines()[-1] == (
            f"stopped by run.max_minutes after step {step} of 12, with a checkpoint; --resume goes on from it"
        )
        assert out == ("" if step == 1 else f"{tmp_path / 'run' / 'model'}\n")


class Send(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number: int, step: int, times: int = 1) -> None:
        self.number, self.step, self.times = number, step, times

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    build = fit_module.build_trainer

    def send(*arguments: int) -> None:
        extra = [Send(*arguments)] if arguments else []
        monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, *extra]))

    return send


@pytest.mark.parametrize(("name", "step", "code"), [("SIGTERM", 4, 143), ("SIGUSR1", 0, 138), ("SIGINT", 7, 130)])
def test_a_signal_ends_a_run_after_the_step_under_way(
    mapping: dict[str, Any], tmp_path: Path, sent: Callable[..., None], name: str, step: int, code: int
) -> None:
    train(from_mapping(TrainConfig, mapping))
    mapping["output"]["directory"] = str(tmp_path / "parts")
    config = from_mapping(TrainConfig, mapping)
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    sent(number, step)
    message = rf"stopped by {name} after step {step + 1} of 12, with a checkpoint; --resume goes on from it"
    with pytest.raises(RunInterruptedError, match=message) as ended:
        train(config)
    assert ended.value.exit_code == code
    assert signal.getsignal(number) is handler
    assert not (tmp_path / "parts" / "model").exists()
    sent()
    train(config, resume=True)
    same_run(tmp_path / "parts", tmp_path / "run")


def test_a_second_interrupt_does_not_wait(make_config: Make, sent: Callable[..., None]) -> None:
    config = make_config()
    handler = signal.getsignal(signal.SIGINT)
    sent(signal.SIGINT, 7, 2)
    with pytest.raises(RunInterruptedError, match="Stopped at once by a second SIGINT") as ended:
        train(config)
    assert ended.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    # What stands is the checkpoint before step 7.
    sent()
    assert train(config, resume=True).steps == 12


def test_the_command_exits_as_a_shell_expects(
    mapping: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(mapping))
    sent(signal.SIGTERM, 2)
    with pytest.raises(SystemExit) as ended:
        run(["train", "--config", "run.yaml", "--resume", "auto"])
    assert ended.value.code == 143
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("genossm: error: stopped by SIGTERM after step 3 of 12")
    sent()
    with pytest.raises(SystemExit) as ended:
        run(["train", "--config", "run.yaml", "--resume", "auto"])
    assert ended.value.code == 0
    assert "step 12/12" in capsys.readouterr().err


def test_resume_auto_begins_goes_on_and_leaves_a_whole_run_alone(make_config: Make) -> None:
    config = make_config(run__checkpoint_every=5)
    directory = config.output.directory

    class Die(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
            raise InterruptedError

    # A run that died before its first checkpoint is begun anew.
    build = fit_module.build_trainer
    fit_module.build_trainer = lambda config, callbacks: build(config, [*callbacks, Die()])
    try:
        with pytest.raises(InterruptedError):
            train(config, resume="auto")
    finally:
        fit_module.build_trainer = build
    with pytest.raises(InputFileError, match="nothing to resume"):
        train(config, resume=True)
    first = train(config, resume="auto")
    before = numbers(directory)
    again = train(config, resume="auto")
    assert (again.steps, again.validation_bits, again.finished) == (12, first.validation_bits, True)
    assert numbers(directory) == before
    with pytest.raises(UsageError, match="Choose one"):
        train(config, resume="auto", force=True)


def test_resume_auto_does_not_touch_what_is_no_run(make_config: Make, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"is no training run .* Choose another output\.") as caught:
        train(make_config(output__directory=str(precious)), resume="auto")
    assert "Pass" not in str(caught.value)
    assert (precious / "thesis.txt").exists()


def test_a_run_goes_on_under_another_name_of_its_device(make_config: Make) -> None:
    steady = {"schedule__kind": "constant", "schedule__warmup_steps": 0}
    train(make_config(run__max_steps=4, **steady))
    other = "cpu" if make_config().run.accelerator == "auto" else "auto"
    assert train(make_config(run__max_steps=6, run__accelerator=other), resume=True).steps == 6


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"run__max_steps": 5}, "run.max_steps is 5"),
        ({"run__max_steps": None, "run__max_tokens": 700}, "run.max_tokens is 700, which is 6 steps"),
    ],
)
def test_a_run_that_is_past_the_end_asked_for_is_not_called_trained(
    make_config: Make, limit: dict[str, Any], message: str
) -> None:
    config = make_config(schedule__kind="constant", schedule__warmup_steps=0)
    train(config)
    before = numbers(config.output.directory)
    with pytest.raises(ConfigError, match=f"has 12 steps already; .*{message}.* Raise it to go on"):
        train(make_config(**limit), resume=True)
    assert numbers(config.output.directory) == before


def test_a_run_goes_on_with_another_rate_only_if_that_is_meant(make_config: Make) -> None:
    steady = {"schedule__kind": "constant", "schedule__warmup_steps": 0}
    train(make_config(run__max_steps=4, **steady))
    changed = {"run__max_steps": 8, "optimizer__learning_rate": 0.003, "optimizer__weight_decay": 0.7}
    with pytest.raises(ConfigError, match=r"other values of optimizer\.learning_rate, .*pass --allow-changes"):
        train(make_config(**changed), resume=True)
    with pytest.raises(ConfigError, match=r"other values of data\.window, .* Resume with the same ones, or start anew"):
        train(make_config(data__window=16, **changed), resume=True, allow_changes=True)
    config = make_config(data__window=32, **changed)
    train(config, resume=True, allow_changes=True)
    rates = {int(row["step"]): row["learning_rate"] for row in rows(config.output.directory) if row["learning_rate"]}
    assert rates == {2: "0.01", 4: "0.01", 6: "0.003", 8: "0.003"}
    saved = torch.load(config.output.directory / "checkpoints/last.ckpt", weights_only=True)
    decays = {group["name"]: group["weight_decay"] for group in saved["optimizer_states"][0]["param_groups"]}
    assert decays == {"decay": 0.7, "no_decay": 0.0}
    # The averages of the steps before were kept: the optimizer has seen all eight.
    assert all(entry["step"] == 8 for entry in saved["optimizer_states"][0]["state"].values())


def test_what_the_error_of_a_nan_advises_works(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Poison(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step == 7:
                for parameter in pl_module.parameters():
                    parameter.grad = torch.full_like(parameter, torch.nan)

    build = fit_module.build_trainer
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Poison()]))
    with pytest.raises(NumericsError, match=r"Lower optimizer\.learning_rate .*\. --resume --allow-changes goes on"):
        train(make_config())
    monkeypatch.setattr(fit_module, "build_trainer", build)
    assert train(make_config(optimizer__learning_rate=0.001), resume=True, allow_changes=True).steps == 12


@pytest.mark.parametrize("validation", [False, True])
def test_a_nan_before_the_first_checkpoint_does_not_advise_to_resume(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            if trainer.global_step == 1 and not validation:
                next(pl_module.parameters()).data.fill_(float("nan"))

        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
            next(pl_module.parameters()).data.fill_(float("nan"))

    config = make_config(run__checkpoint_every=8)
    build = fit_module.build_trainer
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Poison()]))
    with pytest.raises(NumericsError, match="No checkpoint was written yet: start anew with --force") as caught:
        train(config)
    assert "--resume" not in str(caught.value)
    assert "before this step" not in str(caught.value)
    monkeypatch.setattr(fit_module, "build_trainer", build)
    assert train(config, force=True).steps == 12

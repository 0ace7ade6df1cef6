"""Whole runs on a toy genome: they learn, stop, go on, and leave what they say."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import genossm.training.fit as fit_module
from genossm.core.errors import ConfigError, InputFileError, NumericsError, OutputExistsError, UsageError
from genossm.models import SequenceModel, load
from genossm.training import TrainConfig, train

Make = Callable[..., TrainConfig]


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def numbers(directory: Path) -> list[tuple[str, ...]]:
    """The log without what the clock wrote."""
    kept = ("step", "tokens", "learning_rate", "train_bits_per_base", "gradient_norm", "validation_bits_per_base")
    return [tuple(row[column] for column in kept) for row in rows(directory)]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load(directory).tensors()


class Interrupt(Callback):
    """Dies at the start of a step, as a killed process would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:  # noqa: ARG002
        if trainer.global_step == self.step:
            raise InterruptedError


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    build = fit_module.build_trainer

    def choose(step: int | None) -> None:
        extra = [] if step is None else [Interrupt(step)]
        monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, *extra]))

    return choose


def test_a_short_run_learns_and_leaves_a_model_that_says_where_it_came_from(make_config: Make) -> None:
    config = make_config(run__max_steps=60, run__validate_every=20)
    result = train(config)
    found = rows(config.output.directory)
    validation = [float(row["validation_bits_per_base"]) for row in found if row["validation_bits_per_base"]]
    assert validation[0] > validation[-1]
    assert result.validation_bits == pytest.approx(min(validation), abs=1e-5)
    assert result.validation_bits < 1.95
    assert (result.steps, result.tokens) == (60, 60 * 4 * 32)
    model = load(result.model)
    assert isinstance(model, SequenceModel)
    provenance = json.loads((result.model / "provenance.json").read_text())
    assert provenance["seed"] == 5
    assert provenance["model_digest"] == model.digest()
    assert provenance["extra"]["config"] == config.as_mapping()
    assert provenance["extra"]["metrics"]["best_step"] == result.best_step
    assert len(provenance["reference_digest"]) == 64


def test_the_log_counts_steps_and_bases_and_shows_the_rate_of_each_step(make_config: Make) -> None:
    config = make_config(schedule__warmup_steps=4)
    train(config)
    found = rows(config.output.directory)
    trained = [row for row in found if row["train_bits_per_base"]]
    assert [int(row["step"]) for row in trained] == [2, 4, 6, 8, 10, 12]
    assert all(int(row["tokens"]) == int(row["step"]) * 128 for row in found)
    assert [float(row["learning_rate"]) for row in trained[:2]] == [0.005, 0.01]
    assert [int(row["step"]) for row in found if row["validation_bits_per_base"]] == [4, 8, 12]


@pytest.mark.parametrize("stop", [3, 4, 11])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    make_config: Make, interrupt_at: Callable[[int | None], None], stop: int
) -> None:
    config = make_config(run__checkpoint_every=1)
    directory = config.output.directory
    whole = directory.with_name("whole")
    train(config)
    shutil.move(directory, whole)

    interrupt_at(stop)
    with pytest.raises(InterruptedError):
        train(config)
    assert not (directory / "model").exists()
    interrupt_at(None)
    train(config, resume=True)

    assert numbers(directory) == numbers(whole)
    for name, tensor in weights(whole / "model").items():
        assert torch.equal(tensor, weights(directory / "model")[name]), name
    states = [
        torch.load(place / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
        for place in (whole, directory)
    ]
    for left, right in zip(*(state[0]["state"].values() for state in states), strict=True):
        assert torch.equal(left["exp_avg_sq"], right["exp_avg_sq"])


def test_a_checkpoint_older_than_the_interruption_repeats_the_steps_since(
    make_config: Make, interrupt_at: Callable[[int | None], None]
) -> None:
    config = make_config(run__checkpoint_every=3, run__log_every=1)
    directory = config.output.directory
    train(config)
    whole = directory.with_name("whole")
    shutil.move(directory, whole)
    interrupt_at(8)
    with pytest.raises(InterruptedError):
        train(config)
    assert [row["step"] for row in rows(directory)][-1] == "8"
    interrupt_at(None)
    train(config, resume=True)
    assert numbers(directory) == numbers(whole)


def test_a_finished_run_can_be_made_longer(make_config: Make) -> None:
    steady = {"schedule__kind": "constant", "schedule__warmup_steps": 0}
    long = make_config(run__max_steps=16, **steady)
    train(long)
    whole = long.output.directory.with_name("whole")
    shutil.move(long.output.directory, whole)
    short = make_config(run__max_steps=8, **steady)
    train(short)
    train(make_config(run__max_steps=16, **steady), resume=True)
    assert numbers(long.output.directory) == numbers(whole)


def test_resuming_a_finished_run_changes_nothing(make_config: Make) -> None:
    config = make_config()
    first = train(config)
    before = numbers(config.output.directory)
    again = train(config, resume=True)
    assert (again.steps, again.validation_bits) == (first.steps, first.validation_bits)
    assert numbers(config.output.directory) == before


def test_the_result_is_the_model_with_the_fewest_validation_bits_not_the_last(make_config: Make) -> None:
    # A rate this high makes later models worse than the first validated one.
    config = make_config(optimizer__learning_rate=3.0, schedule__kind="constant", run__gradient_clip=None)
    result = train(config)
    found = [
        (float(row["validation_bits_per_base"]), int(row["step"]))
        for row in rows(config.output.directory)
        if row["validation_bits_per_base"]
    ]
    assert result.best_step == min(found)[1]
    assert result.best_step != found[-1][1]


def test_a_last_step_between_validations_is_validated_too(make_config: Make) -> None:
    config = make_config(run__max_steps=6)
    train(config)
    found = [row["step"] for row in rows(config.output.directory) if row["validation_bits_per_base"]]
    assert found == ["4", "6"]


def test_time_ends_a_run_whole(make_config: Make) -> None:
    config = make_config(run__max_steps=None, run__max_minutes=0.02, schedule__kind="constant")
    result = train(config)
    assert result.steps >= 1
    assert load(result.model).num_parameters() > 0


def test_a_nan_stops_the_run_and_leaves_no_model(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(float("nan"))

    build = fit_module.build_trainer
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Poison()]))
    config = make_config()
    with pytest.raises(NumericsError, match=r"step 5: the loss is nan.*backbone\.embedding\.weight.*toy:"):
        train(config)
    assert not (config.output.directory / "model").exists()
    # What is left can be resumed from before the trouble.
    monkeypatch.setattr(fit_module, "build_trainer", build)
    assert train(config, resume=True).steps == 12


def test_a_run_in_the_way_is_kept_unless_replaced_or_resumed(make_config: Make) -> None:
    config = make_config(run__max_steps=2)
    train(config)
    with pytest.raises(OutputExistsError, match=r"--resume.*--force"):
        train(config)
    with pytest.raises(UsageError, match="Choose one"):
        train(config, resume=True, force=True)
    (config.output.directory / "metrics.csv").write_text("old")
    train(config, force=True)
    assert rows(config.output.directory)


def test_force_keeps_the_old_run_until_the_new_one_has_a_checkpoint(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fail(Callback):
        step = -1

        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == self.step:
                raise RuntimeError("the new run ends here")

    old = make_config(run__max_steps=4)
    directory = old.output.directory
    train(old)
    model = load(directory / "model").digest()
    build, fail = fit_module.build_trainer, Fail()
    monkeypatch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, fail]))
    new = make_config(run__max_steps=8, run__seed=6)
    for fail.step in (0, 2):
        with pytest.raises(RuntimeError, match="the new run ends here"):
            train(new, force=True)
        assert load(directory / "model").digest() == model
        assert "seed: 5" in (directory / "config.yaml").read_text()
        assert list(directory.parent.glob(".*")) == []
    # Checkpoints are taken every 3 steps: from here on the new run is what a resume goes on with.
    fail.step = 5
    with pytest.raises(RuntimeError):
        train(new, force=True)
    assert not (directory / "model").exists()
    assert list(directory.parent.glob(".*")) == []
    fail.step = -1
    assert train(new, resume=True).steps == 8


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_force_keeps_the_old_run_if_the_new_one_cannot_be_set_up(
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    def no_trainer(*_: object) -> None:
        raise error("no such machine")

    config = make_config(run__max_steps=4)
    train(config)
    before = sorted(config.output.directory.rglob("*"))
    monkeypatch.setattr(fit_module, "build_trainer", no_trainer)
    with pytest.raises(error, match="no such machine"):
        train(config, force=True)
    assert sorted(config.output.directory.rglob("*")) == before
    assert "until the new one has a checkpoint" in caplog.text
    assert "the one that it was to replace is back in" in caplog.text


def test_a_gpu_that_is_not_there_is_an_error_before_anything_is_touched(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = make_config(run__accelerator="gpu", run__devices=2)
    with pytest.raises(UsageError, match=r"run\.accelerator=gpu with run\.devices=2 was asked for; .* has 1 CUDA dev"):
        train(config)
    assert not config.output.directory.exists()


def test_force_does_not_delete_what_is_no_run(make_config: Make, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="no training run"):
        train(make_config(output__directory=str(precious)), force=True)
    assert (precious / "thesis.txt").exists()


def test_resume_needs_a_checkpoint_of_the_same_run(make_config: Make) -> None:
    config = make_config(run__max_steps=2)
    with pytest.raises(InputFileError, match="nothing to resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(ConfigError, match=r"other values of optimizer\.learning_rate, run\.seed"):
        train(make_config(run__seed=6, optimizer__learning_rate=0.5), resume=True)
    last = config.output.directory / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputFileError, match=r"last\.ckpt cannot be read as a checkpoint"):
        train(make_config(run__seed=5, optimizer__learning_rate=0.01), resume=True)


def test_nothing_is_written_before_the_configuration_has_been_checked(make_config: Make) -> None:
    config = make_config(splits__validation="toy:2,000-3,000")
    with pytest.raises(ConfigError, match="overlap by 401 bases"):
        train(config)
    assert not config.output.directory.exists()


def test_lightning_keeps_quiet(make_config: Make, capfd: pytest.CaptureFixture[str]) -> None:
    train(make_config())
    out, err = capfd.readouterr()
    assert out == ""
    steps = [line for line in err.splitlines() if line.startswith("step ")]
    assert len(steps) == 3
    others = [line for line in err.splitlines() if line not in steps and "plain PyTorch path" not in line]
    # The last line is what the run took.
    assert len(others) == 1
    assert others[0].startswith("trained: ")


def test_a_run_in_parts_learns_what_the_whole_batches_teach(make_config: Make, tmp_path: Path) -> None:
    train(make_config())
    train(make_config(data__micro_batch=3, output__directory=str(tmp_path / "parts")))
    whole, parts = ([row for row in rows(tmp_path / name) if row["train_bits_per_base"]] for name in ("run", "parts"))
    for one, other in zip(whole, parts, strict=True):
        assert other["tokens"] == one["tokens"]
        assert float(other["train_bits_per_base"]) == pytest.approx(float(one["train_bits_per_base"]), abs=1e-4)
        assert float(other["gradient_norm"]) == pytest.approx(float(one["gradient_norm"]), rel=1e-3)

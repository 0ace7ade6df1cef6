"""What metrics.csv says of speed, waiting and memory, against steps whose times are known."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.data.dataset import WindowDataset
from genossm.training import TrainConfig, train
from genossm.training.metrics import MetricsLog
from genossm.training.module import LanguageModelTraining
from genossm.training.watchers.pace import Pace

Make = Callable[..., TrainConfig]
SLEEP, BASES = 0.02, 4 * 32
# The log has six digits of each number.
ROUNDED = 1e-3


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str, float], None]:
    """Make a method wait before it does its work."""

    def delay(owner: type, name: str, seconds: float) -> None:
        method = getattr(owner, name)

        def late(*arguments: Any, **options: Any) -> Any:
            time.sleep(seconds)
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, late)

    return delay


def figures(config: TrainConfig, name: str) -> list[float]:
    return [float(row[name]) for row in rows(config.output.directory) if row[name]]


@pytest.mark.parametrize("late", ["data", "step"])
def test_waiting_for_data_is_told_from_computing(
    make_config: Make, slow: Callable[[type, str, float], None], capfd: pytest.CaptureFixture[str], late: str
) -> None:
    # Four windows a step: the loader is asked for each of them.
    if late == "data":
        slow(WindowDataset, "__getitem__", SLEEP / 4)
    else:
        slow(LanguageModelTraining, "training_step", SLEEP)
    config = make_config(run__validate_every=6)
    train(config)
    shares = figures(config, "data_wait_share")
    speeds = figures(config, "bases_per_second")
    assert len(shares) == 6
    assert all(0.0 <= share <= 1.0 for share in shares)
    # Whatever else the machine does, the part that was delayed takes the delay at least, and the other one less.
    delayed = [(share if late == "data" else 1 - share) * BASES / speed for share, speed in zip(shares, speeds)]
    assert min(delayed) >= SLEEP
    if late == "step":
        assert statistics.median(share * BASES / speed for share, speed in zip(shares, speeds)) < SLEEP
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("trained: ")
    assert " bases a second in training steps, " in line
    assert "% of it waiting for data" in line
    assert "GPU" not in line


def test_validation_is_no_part_of_a_step(make_config: Make, slow: Callable[[type, str, float], None]) -> None:
    slow(LanguageModelTraining, "on_validation_epoch_start", 0.3)
    config = make_config()
    train(config)
    found = [row for row in rows(config.output.directory) if row["bases_per_second"]]
    after_validation = [row for row in found if row["step"] in ("6", "10")]
    assert len(after_validation) == 2
    for row in after_validation:
        whole, steps = (2 * BASES / float(row[name]) for name in ("tokens_per_second", "bases_per_second"))
        assert whole >= steps + 0.3 - ROUNDED


def test_time_to_go_shrinks_to_nothing(make_config: Make, slow: Callable[[type, str, float], None]) -> None:
    slow(LanguageModelTraining, "training_step", SLEEP)
    config = make_config()
    train(config)
    found = [row for row in rows(config.output.directory) if row["seconds_left"]]
    for row in found:
        steps = 12 - int(row["step"])
        mean_step = float(row["seconds"]) / (int(row["step"]) - 1)
        assert steps * SLEEP <= float(row["seconds_left"]) <= steps * mean_step + ROUNDED
    assert float(found[-1]["seconds_left"]) == 0.0


def test_time_to_go_is_never_less_than_nothing(make_config: Make, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv", lengths=make_config().lengths, every=1, total_steps=4)
    for _ in range(2):
        log.pace.step_done(128)
    assert (log.seconds_left(4), log.seconds_left(5)) == (0.0, 0.0)


def test_the_peak_of_gpu_memory_is_of_the_steps_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"peak": 5_000_000_000}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: now["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: now.update(peak=1_000_000_000))
    pace = Pace()
    pace.begin()
    found = []
    for _ in range(3):
        pace.step_done(100)
        found.append(pace.since_last(torch.device("cuda")))
    # The first step of a part is not timed, but what it took counts for the whole run.
    assert found[0] is None
    assert [figures and figures.gpu_peak_bytes for figures in found[1:]] == [1_000_000_000] * 2
    assert "at most 5.00 GB of GPU memory" in (pace.sentence() or "")
    other = Pace()
    other.load_state_dict(pace.state_dict())
    assert other.whole() == pace.whole()


def test_a_log_of_an_earlier_version_is_continued(make_config: Make) -> None:
    config = make_config()
    train(config)
    path = config.output.directory / "metrics.csv"
    old = [[row[name] for name in ("step", "tokens", "train_bits_per_base")] for row in rows(config.output.directory)]
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows([["step", "tokens", "train_bits_per_base"], *old])
    train(make_config(run__max_steps=14), resume=True)
    found = rows(config.output.directory)
    assert [row["train_bits_per_base"] for row in found][: len(old)] == [row[2] for row in old]
    assert "bases_per_second" in found[0]
    assert found[-1]["step"] == "14"

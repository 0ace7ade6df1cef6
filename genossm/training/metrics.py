"""metrics.csv: one row every few steps and one a validation, whole at any moment and continued by a resumed run."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genossm.data.lengths import Lengths
from genossm.data.lightning import require_lightning
from genossm.training.module import as_training
from genossm.training.step_table import StepTable
from genossm.training.watchers.pace import Pace

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback

COLUMNS = (
    *("step", "tokens", "seconds", "learning_rate", "train_bits_per_base"),
    *("gradient_norm", "tokens_per_second", "validation_bits_per_base", "window"),
    *("bases_per_second", "data_wait_share", "gpu_peak_bytes", "seconds_left"),
)


class MetricsLog(Callback):
    """Writes the file at `path`; also keeps the run's clock, which a checkpoint carries over an interruption.

    lengths: what each step reads.   every: steps between training rows, whose bits and norm are means since the last
    one; the end of a stage has a row of its own, so that no mean is over two window lengths.
    The column `window` is that of the row's last training step, in rows of validation too. tokens_per_second is of all
    that a run does, bases_per_second and data_wait_share of training steps alone.
    total_steps: None if only time ends the run.
    """

    def __init__(self, path: Path, *, lengths: Lengths, every: int, total_steps: int | None = None) -> None:
        self.lengths, self.every, self.total_steps = lengths, every, total_steps
        self._table = StepTable(path, COLUMNS)
        self.pace = Pace()
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._sums = [0.0, 0.0, 0.0]
        self._last = (0, 0.0)

    @property
    def seconds(self) -> float:
        """Time spent in this run, over all its parts."""
        return self.seconds_before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        last = list(self._last)
        return {"seconds": self.seconds, "sums": list(self._sums), "last": last, "pace": self.pace.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds_before = state_dict["seconds"]
        self._sums = list(state_dict["sums"])
        self._last = tuple(state_dict["last"])
        if "pace" in state_dict:  # checkpoints of earlier versions have none
            self.pace.load_state_dict(state_dict["pace"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero:
            self._table.start(trainer.global_step)
        self.pace.begin()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        module = as_training(pl_module)
        self.pace.step_done(self.lengths.at(trainer.global_step - 1).tokens_per_step)
        for i, value in enumerate((1.0, module.last_bits, module.last_norm)):
            self._sums[i] += value
        if trainer.global_step % self.every and not self.lengths.is_boundary(trainer.global_step):
            return
        steps, total_bits, total_norm = self._sums
        step, seconds = trainer.global_step, self.seconds
        last_step, last_seconds = self._last
        tokens = self.lengths.tokens(step) - self.lengths.tokens(last_step)
        speed = tokens / max(seconds - last_seconds, 1e-9)
        self._write(
            trainer,
            learning_rate=module.last_rate,
            train_bits_per_base=total_bits / steps,
            gradient_norm=total_norm / steps,
            tokens_per_second=speed,
            **self._pace_of(pl_module.device, step),
        )
        self._sums, self._last = [0.0, 0.0, 0.0], (step, seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, validation_bits_per_base=as_training(pl_module).validation_bits)
        self.pace.begin()

    def seconds_left(self, step: int) -> float | None:
        """What the run still takes after `step` steps at its pace, without validation; None where nobody knows."""
        if self.total_steps is None:
            return None
        return self.pace.seconds_for(max(0, self.lengths.tokens(self.total_steps) - self.lengths.tokens(step)))

    def _pace_of(self, device: torch.device, step: int) -> dict[str, float | None]:
        figures = self.pace.since_last(device)
        return {} if figures is None else {**asdict(figures), "seconds_left": self.seconds_left(step)}

    def _write(self, trainer: Trainer, **values: float | None) -> None:
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        counted = {
            "step": step,
            "tokens": self.lengths.tokens(step),
            "window": self.lengths.at(max(0, step - 1)).window,
        }
        row = {**counted, "seconds": self.seconds, **values}
        self._table.append(row)

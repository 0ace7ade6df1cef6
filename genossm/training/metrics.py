"""metrics.csv: one row every few steps and one a validation, whole at any moment and continued by a resumed run."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genossm.core.atomic import atomic_file
from genossm.data.lightning import require_lightning
from genossm.training.module import as_training

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback

COLUMNS = (
    *("step", "tokens", "seconds", "learning_rate", "train_bits_per_base"),
    *("gradient_norm", "tokens_per_second", "validation_bits_per_base"),
)


class MetricsLog(Callback):
    """Writes `path`; also keeps the run's clock, which a checkpoint carries over an interruption.

    tokens_per_step: over all devices.   every: steps between training rows, whose bits and norm are means since the
    last one.
    """

    def __init__(self, path: Path, *, tokens_per_step: int, every: int) -> None:
        self.path, self.tokens_per_step, self.every = path, tokens_per_step, every
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._sums = [0.0, 0.0, 0.0]
        self._last = (0, 0.0)

    @property
    def seconds(self) -> float:
        """Time spent in this run, over all its parts."""
        return self.seconds_before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "sums": list(self._sums), "last": list(self._last)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds_before = state_dict["seconds"]
        self._sums = list(state_dict["sums"])
        self._last = tuple(state_dict["last"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero:
            _keep_rows(self.path, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        module = as_training(pl_module)
        for i, value in enumerate((1.0, module.last_bits, module.last_norm)):
            self._sums[i] += value
        if trainer.global_step % self.every:
            return
        steps, total_bits, total_norm = self._sums
        step, seconds = trainer.global_step, self.seconds
        last_step, last_seconds = self._last
        speed = (step - last_step) * self.tokens_per_step / max(seconds - last_seconds, 1e-9)
        self._write(
            trainer,
            learning_rate=module.last_rate,
            train_bits_per_base=total_bits / steps,
            gradient_norm=total_norm / steps,
            tokens_per_second=speed,
        )
        self._sums, self._last = [0.0, 0.0, 0.0], (step, seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, validation_bits_per_base=as_training(pl_module).validation_bits)

    def _write(self, trainer: Trainer, **values: float) -> None:
        if not trainer.is_global_zero:
            return
        tokens = trainer.global_step * self.tokens_per_step
        row = {"step": trainer.global_step, "tokens": tokens, "seconds": self.seconds, **values}
        with open(self.path, "a", newline="") as handle:
            csv.writer(handle).writerow([_text(row.get(column)) for column in COLUMNS])


def _keep_rows(path: Path, last_step: int) -> None:
    """Start the file, or cut what a broken run wrote after the checkpoint that is resumed from."""
    rows: list[list[str]] = []
    if path.exists():
        with open(path, newline="") as handle:
            # A row that was cut off when the run died is shorter.
            rows = [row for row in csv.reader(handle) if len(row) == len(COLUMNS) and row[0].isdigit()]
    kept = [row for row in rows if int(row[0]) <= last_step]
    with atomic_file(path, force=True) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows(kept)
        handle.flush()
        os.fsync(handle.fileno())


def _text(value: float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"

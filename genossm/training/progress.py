"""What the user sees while a run goes: a bar if stderr is a terminal, a line a validation in any case."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genossm.data.lengths import Lengths
from genossm.data.lightning import require_lightning
from genossm.training.metrics import MetricsLog
from genossm.training.module import as_training
from genossm.training.stopping import Stopped

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback


class ProgressLines(Callback):
    """total_steps: None if only time ends the run.   lengths: what each step reads.   unit: what the bits are of.

    clock: what knows the pace.   console: stderr unless given.
    """

    def __init__(
        self,
        total_steps: int | None,
        *,
        lengths: Lengths,
        unit: str,
        clock: MetricsLog,
        console: Console | None = None,
    ) -> None:
        self.total_steps, self.lengths, self.unit, self.clock = total_steps, lengths, unit, clock
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.console.is_terminal or not trainer.is_global_zero:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn(f"{{task.fields[bits]:.4f}} {self.unit}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=self.total_steps, bits=2.0, completed=trainer.global_step)
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, bits=as_training(pl_module).last_bits)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            of = f"/{self.total_steps}" if self.total_steps else ""
            tokens = self.lengths.tokens(trainer.global_step)
            self.console.print(
                f"step {trainer.global_step}{of}, {tokens:,} bases: "
                f"{as_training(pl_module).validation_bits:.4f} {self.unit} on validation"
                f"{_left(self.clock.seconds_left(trainer.global_step))}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def close(self, trainer: Trainer, stopped: Stopped | None) -> None:
        """The last lines of a run: what its steps took, and what is left of them if time ended it."""
        pace = self.clock.pace.sentence()
        if not trainer.is_global_zero:
            return
        if pace is not None:
            self.console.print(f"trained: {pace}")
        if stopped is not None and stopped.number is None:
            self.console.print(self.words_of(stopped))

    def words_of(self, stopped: Stopped) -> str:
        """Why the run ended before its last step, and how it goes on."""
        why = "run.max_minutes" if stopped.number is None else signal.Signals(stopped.number).name
        if not stopped.step:
            return f"stopped by {why} before the first step"
        of = f" of {self.total_steps:,}" if self.total_steps else ""
        return f"stopped by {why} after step {stopped.step:,}{of}, with a checkpoint; --resume goes on from it"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def readable_time(seconds: float) -> str:
    """As in `42 s`, `12 min`, `3 h 05 min`, rounded."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _left(seconds: float | None) -> str:
    return f", {readable_time(seconds)} to go" if seconds else ""

"""What the user sees while a run goes: a bar if stderr is a terminal, a line a validation in any case."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genossm.data.lightning import require_lightning
from genossm.training.module import as_training

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback


class ProgressLines(Callback):
    """total_steps: None if only time ends the run.   unit: what the bits are of.   console: stderr unless given."""

    def __init__(
        self, total_steps: int | None, *, tokens_per_step: int, unit: str, console: Console | None = None
    ) -> None:
        self.total_steps, self.tokens_per_step, self.unit = total_steps, tokens_per_step, unit
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
            tokens = trainer.global_step * self.tokens_per_step
            self.console.print(
                f"step {trainer.global_step}{of}, {tokens:,} bases: "
                f"{as_training(pl_module).validation_bits:.4f} {self.unit} on validation"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

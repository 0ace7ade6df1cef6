"""watch.csv: what is measured inside steps now and then, and what is warned of."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genossm.data.lightning import require_lightning
from genossm.training.module import as_training
from genossm.training.step_table import StepTable
from genossm.training.watchers.alarms import Alarms
from genossm.training.watchers.measures import Measures

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback


class Watch(Callback):
    """Writes what `Measures` measures every so many steps to `path`, and shows `Alarms` every step."""

    def __init__(self, path: Path, *, every: int) -> None:
        self.path, self.every = path, every
        self.alarms = Alarms()

    def state_dict(self) -> dict[str, Any]:
        return self.alarms.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.alarms.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measures = Measures(as_training(pl_module).model)
        self._table = StepTable(self.path, ("step", *self._measures.names))
        if trainer.is_global_zero:
            self._table.start(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # The step that is about to begin is number `global_step + 1`.
        wanted = (trainer.global_step + 1) % self.every == 0
        as_training(pl_module).measures = self._measures if wanted else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, step = as_training(pl_module), trainer.global_step
        if not trainer.is_global_zero:
            return
        if module.measured:
            self._table.append({"step": step, **module.measured})
        self.alarms.look(step, module.last_bits, module.last_norm, module.measured, module.last_intervals)

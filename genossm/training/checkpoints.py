"""What a run keeps on disk while it goes: the last whole state to resume from, and the best model so far."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genossm.core.atomic import atomic_file
from genossm.data.lightning import require_lightning
from genossm.parallel import to_be_saved
from genossm.training.config import TrainConfig
from genossm.training.module import as_training
from genossm.training.optim import numbered_by_name
from genossm.training.resume import LAST, has_checkpoint

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback

BEST = "best"


class Checkpoints(Callback):
    """Saves `last.ckpt` every few steps and at the end, and the model whenever validation finds it better than before.

    The state is taken just before a step begins: everything about the step before, validation included, is done.
    reference_digest: of the genome, kept for resuming.   on_first_save: called after the first checkpoint of at least
    one step.
    """

    def __init__(
        self,
        directory: Path,
        config: TrainConfig,
        *,
        every: int,
        reference_digest: str | None = None,
        on_first_save: Callable[[], None] | None = None,
    ) -> None:
        self.directory, self.config, self.every = directory, config, every
        self.on_first_save = on_first_save
        self.reference_digest = reference_digest
        self.best_bits, self.best_step = float("inf"), -1
        self.validated_step = -1
        self._resumed_at = -1

    @property
    def best(self) -> Path:
        """Model directory of the best validation so far."""
        return self.directory / BEST

    def state_dict(self) -> dict[str, Any]:
        generators = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state()
        return {
            "best_bits": self.best_bits,
            "best_step": self.best_step,
            "validated_step": self.validated_step,
            "config": self.config.as_mapping(),
            "reference_digest": self.reference_digest,
            "generators": generators,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_bits, self.best_step = state_dict["best_bits"], state_dict["best_step"]
        self.validated_step = state_dict["validated_step"]
        self._generators = state_dict["generators"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed_at = trainer.global_step
        as_training(pl_module).has_checkpoint = has_checkpoint(self.directory)
        generators = getattr(self, "_generators", None)
        if generators is not None:
            torch.set_rng_state(generators["cpu"].cpu())
            if "cuda" in generators and torch.cuda.is_available():
                torch.cuda.set_rng_state(generators["cuda"].cpu())

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step % self.every == 0 and step not in (0, self._resumed_at):
            self.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning has counted the batch that is about to begin. Resumed, it would count it again, and validate a
        # step early ever after.
        total = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
        total["ready"] = total["completed"]
        names = [name for name, _ in as_training(pl_module).model.named_parameters()]
        checkpoint["optimizer_states"] = [numbered_by_name(state, names) for state in checkpoint["optimizer_states"]]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = as_training(pl_module)
        self.validated_step = trainer.global_step
        if module.validation_bits >= self.best_bits:
            return
        self.best_bits, self.best_step = module.validation_bits, trainer.global_step
        if trainer.is_global_zero:
            to_be_saved(module.model).save_pretrained(self.best, force=True)

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` under a temporary name, then rename: a reader finds the old or the new one, whole."""
        if trainer.is_global_zero:
            with atomic_file(self.directory / LAST, force=True) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            # All processes put the state together; the first one writes it.
            trainer.save_checkpoint(self.directory / LAST)
        as_training(trainer.lightning_module).has_checkpoint = True
        if self.on_first_save is not None and trainer.global_step:
            self.on_first_save()
            self.on_first_save = None

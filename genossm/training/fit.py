"""The part of a run that Lightning drives."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genossm.core.errors import RunInterruptedError
from genossm.data.lightning import require_lightning
from genossm.models import SequenceModel
from genossm.parallel import agreed
from genossm.training.assembly import build_data, build_module
from genossm.training.checkpoints import Checkpoints
from genossm.training.config import TrainConfig
from genossm.training.failures import readable_failures
from genossm.training.metrics import MetricsLog
from genossm.training.progress import ProgressLines
from genossm.training.reading import Plans
from genossm.training.stopping import Stopped, Stops
from genossm.training.strategy import build_plugins, build_strategy
from genossm.training.watchers.watch import Watch

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

    from genossm.genome import Genome
else:
    Callback = require_lightning().Callback


WATCH = "watch.csv"


@dataclass(frozen=True)
class Outcome:
    """best: directory of the model with the fewest validation bits.   seconds: in training, over all parts.

    finished: whether the run has come to its last step.
    """

    steps: int
    seconds: float
    best_bits: float
    best_step: int
    best: Path
    is_global_zero: bool
    finished: bool


def fit(
    config: TrainConfig,
    model: SequenceModel,
    genome: Genome,
    windows: Plans,
    *,
    metrics: Path,
    checkpoints: Path,
    resume_from: Path | None = None,
    on_first_save: Callable[[], None] | None = None,
) -> Outcome:
    """Train `model` on the first plan's windows, validate on the second's, the last step included.

    on_first_save: called once a step has been made and is in a checkpoint.
    """
    lengths = config.lengths
    data, module = build_data(config, genome, model, windows), build_module(config, model)
    log = MetricsLog(metrics, lengths=lengths, every=config.run.log_every, total_steps=config.total_steps)
    kept = Checkpoints(
        checkpoints,
        config,
        every=config.run.checkpoint_every,
        reference_digest=genome.reference_digest,
        on_first_save=on_first_save,
    )
    lines = ProgressLines(config.total_steps, lengths=lengths, unit=config.unit, clock=log)
    watchers = [] if config.run.watch_every is None else [Watch(metrics.with_name(WATCH), every=config.run.watch_every)]
    stopped: Stopped | None = None
    with _quiet_lightning():
        trainer = build_trainer(config, [log, *watchers, kept, Stops(_leg_seconds(config), kept.save), lines])
        with readable_failures(config, trainer.strategy.root_device, checkpoints):
            try:
                trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
            except Stopped as reason:
                stopped = reason
            seconds = log.seconds
            if stopped is None and kept.validated_step != trainer.global_step:
                trainer.validate(module, datamodule=data, verbose=False)
    lines.close(trainer, stopped)
    if stopped is not None and stopped.number is not None:
        raise RunInterruptedError(lines.words_of(stopped), stopped.number)
    steps = trainer.global_step if stopped is None else stopped.step
    return Outcome(steps, seconds, kept.best_bits, kept.best_step, kept.best, trainer.is_global_zero, stopped is None)


def build_trainer(config: TrainConfig, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer with its own logging, bars, checkpoints and sampling left out."""
    run = config.run
    if run.max_minutes is not None and config.total_steps is None:
        callbacks = [*callbacks, TimeLimit(run.max_minutes * 60)]
    return require_lightning().Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=build_strategy(run),
        plugins=build_plugins(),
        precision=_precision(config),
        max_steps=-1 if config.total_steps is None else config.total_steps,
        max_epochs=-1,
        val_check_interval=run.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        # Lightning tells its profiler, and nobody else, when it asks the loader for a batch.
        profiler=next((callback.pace.waiting for callback in callbacks if isinstance(callback, MetricsLog)), None),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _leg_seconds(config: TrainConfig) -> float | None:
    """After how much time a run with a last step takes a rest."""
    minutes = config.run.max_minutes
    return None if minutes is None or config.total_steps is None else minutes * 60


class TimeLimit(Callback):
    """Ends a run without a last step, after the step under way, once this part of it has taken `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Processes whose clocks disagree would wait for one another in the next step.
        if agreed(time.monotonic() - self._started >= self.seconds, pl_module.device):
            trainer.should_stop = True


def _precision(config: TrainConfig) -> str:
    wanted = config.run.precision
    if wanted == "auto":
        # On a CPU with bfloat16 units a step gains 2 % (d_model 64) to 16 % (d_model 256), without them it loses much.
        gpu = config.run.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        wanted = "bf16" if gpu else "32"
    return {"bf16": "bf16-mixed", "32": "32-true"}[wanted]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips, notices and warnings off the user's terminal; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            # Raised on behalf of the caller, so that the module's name is ours.
            from lightning.fabric.utilities.warnings import PossibleUserWarning

            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)

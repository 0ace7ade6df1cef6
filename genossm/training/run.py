"""`train`: from a configuration to a model directory."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

import genossm.genome
from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import OutputExistsError, UsageError
from genossm.core.provenance import Provenance
from genossm.data.datamodule import GenomeDataModule
from genossm.data.lightning import require_lightning
from genossm.data.regions import Splits
from genossm.data.windows import RandomWindows, TiledWindows, WindowPlan
from genossm.models import SequenceModel, load
from genossm.training.checkpoints import Checkpoints, check_same_run, find_checkpoint
from genossm.training.config import TrainConfig
from genossm.training.metrics import MetricsLog
from genossm.training.module import LanguageModelTraining
from genossm.training.progress import ProgressLines

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

    from genossm.genome import Genome
else:
    Callback = require_lightning().Callback

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.yaml", "metrics.csv", "checkpoints", "model"


@dataclass(frozen=True)
class TrainResult:
    """model: directory of the best model.   tokens: bases read.   seconds: in training, over all parts of the run."""

    model: Path
    steps: int
    tokens: int
    seconds: float
    validation_bits: float
    best_step: int


def train(config: TrainConfig, *, resume: bool = False, force: bool = False) -> TrainResult:
    """Run what `config` describes and leave the model with the fewest validation bits in `<output>/model`.

    resume: go on from the run's last checkpoint.   force: replace a run that stands in the output directory.
    Nothing is written before the whole configuration has been checked against the genome.

    Raises: UsageError, ConfigError, InputFileError, OutputExistsError and the genome's errors before the first step;
    NumericsError if a loss or gradient is not finite.
    """
    directory = config.output.directory
    checkpoint = _checkpoint_to_resume(config, resume=resume, force=force)
    with genossm.genome.open(config.genome.path) as genome:
        torch.manual_seed(config.run.seed)
        model = SequenceModel(config.stack_config())
        data = build_data(config, genome, model)
        module = LanguageModelTraining(
            model,
            config.optimizer,
            config.schedule,
            total_steps=config.total_steps,
            gradient_clip=config.run.gradient_clip,
        )
        _prepare_directory(directory, config, keep=resume)
        metrics = MetricsLog(directory / METRICS, tokens_per_step=config.tokens_per_step, every=config.run.log_every)
        checkpoints = Checkpoints(directory / CHECKPOINTS, config, every=config.run.checkpoint_every)
        lines = ProgressLines(config.total_steps, tokens_per_step=config.tokens_per_step)
        with _quiet_lightning():
            trainer = build_trainer(config, [metrics, checkpoints, lines])
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            seconds = metrics.seconds
            if checkpoints.validated_step != trainer.global_step:
                trainer.validate(module, datamodule=data, verbose=False)
        result = TrainResult(
            directory / MODEL,
            trainer.global_step,
            trainer.global_step * config.tokens_per_step,
            seconds,
            checkpoints.best_bits,
            checkpoints.best_step,
        )
        if trainer.is_global_zero:
            _export(config, genome, checkpoints.best, result)
    return result


def build_data(config: TrainConfig, genome: Genome, model: SequenceModel) -> GenomeDataModule:
    """The run's loaders. Raises: ConfigError for overlapping splits; the genome's errors for regions it lacks."""
    splits = Splits.parse(genome, *(config.splits.regions(name) for name in ("train", "validation", "test")))
    data = config.data
    training: WindowPlan
    if data.sampling == "random":
        training = RandomWindows(
            genome,
            splits.train,
            data.window,
            seed=config.run.seed,
            reverse_complement=data.reverse_complement,
            max_n_fraction=data.max_n_fraction,
        )
    else:
        training = TiledWindows(
            genome,
            splits.train,
            data.window,
            stride=data.stride,
            shuffle=True,
            seed=config.run.seed,
            reverse_complement=data.reverse_complement,
            max_n_fraction=data.max_n_fraction,
        )
    validation = TiledWindows(
        genome, splits.validation, data.validation_window or data.window, max_n_fraction=data.max_n_fraction
    )
    return GenomeDataModule(
        genome,
        model.tokenizer,
        training,
        validation,
        batch=data.batch,
        validation_batch=data.validation_batch or data.batch,
        workers=data.workers,
    )


def build_trainer(config: TrainConfig, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer with its own logging, bars, checkpoints and sampling left out."""
    pl = require_lightning()
    run = config.run
    if run.max_minutes is not None:
        callbacks = [*callbacks, TimeLimit(run.max_minutes * 60)]
    return pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        precision=_precision(config),
        max_steps=-1 if config.total_steps is None else config.total_steps,
        max_epochs=-1,
        val_check_interval=run.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


class TimeLimit(Callback):
    """Stops a run, after the step under way, once this part of it has taken `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._started >= self.seconds:
            trainer.should_stop = True


def _precision(config: TrainConfig) -> str:
    wanted = config.run.precision
    if wanted == "auto":
        # On CPUs autocast was measured slower: casts cost more than the small matrix products gain.
        gpu = config.run.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        wanted = "bf16" if gpu else "32"
    return {"bf16": "bf16-mixed", "32": "32-true"}[wanted]


def _checkpoint_to_resume(config: TrainConfig, *, resume: bool, force: bool) -> Path | None:
    directory = config.output.directory
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it. Choose one.")
    if resume:
        checkpoint = find_checkpoint(directory / CHECKPOINTS)
        check_same_run(checkpoint, config)
        return checkpoint
    if directory.exists() and not force:
        raise OutputExistsError(
            f"{directory} exists already. Pass --resume to go on with the run in it, --force to replace it, or choose "
            "another output.directory."
        )
    if force and directory.exists() and not _is_run(directory):
        raise OutputExistsError(
            f"{directory} is no training run (it has no {CONFIG} and {METRICS}), so --force will not delete it. "
            "Choose another output.directory."
        )
    return None


def _is_run(directory: Path) -> bool:
    if not directory.is_dir():
        return False
    names = {entry.name for entry in directory.iterdir()}
    return not names or CONFIG in names


def _prepare_directory(directory: Path, config: TrainConfig, *, keep: bool) -> None:
    if not keep:
        if directory.exists():
            shutil.rmtree(directory)
        (directory / CHECKPOINTS).mkdir(parents=True)
    with atomic_file(directory / CONFIG, force=True) as temporary:
        temporary.write_text(yaml.safe_dump(config.as_mapping(), sort_keys=False))


def _export(config: TrainConfig, genome: Genome, best: Path, result: TrainResult) -> None:
    """Write the best model as the run's result, with what made it."""
    refuse_overwrite(result.model, force=True)
    figures = {
        "bits per base on validation": round(result.validation_bits, 4),
        "training steps": result.steps,
        "bases read in training": result.tokens,
    }
    provenance = Provenance(
        seed=config.run.seed,
        reference_digest=genome.reference_digest,
        extra={
            "config": config.as_mapping(),
            "metrics": {
                "validation_bits_per_base": result.validation_bits,
                "best_step": result.best_step,
                "steps": result.steps,
                "tokens": result.tokens,
                "seconds": round(result.seconds, 3),
            },
        },
    )
    load(best).save_pretrained(result.model, provenance=provenance, figures=figures, force=True)


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

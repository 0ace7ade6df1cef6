"""`train`: from a configuration to a model directory. Checks first, and loads Lightning only then."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import yaml

import genossm.genome
from genossm.core.atomic import atomic_file
from genossm.core.errors import OutputExistsError, UsageError
from genossm.core.provenance import Provenance
from genossm.models import SequenceModel, load
from genossm.models.devices import require_gpus
from genossm.parallel.processes import is_first, own_group
from genossm.training.config import TrainConfig
from genossm.training.reading import contigs_read, plan_windows, with_regions
from genossm.training.replacing import replacing
from genossm.training.resume import (
    check_same_reference,
    check_same_run,
    check_steps_left,
    find_checkpoint,
    has_checkpoint,
)

if TYPE_CHECKING:
    from genossm.genome import Genome

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.yaml", "metrics.csv", "checkpoints", "model"


@dataclass(frozen=True)
class TrainResult:
    """model: directory of the best model.   tokens: bases read.   seconds: in training, over all parts of the run.

    finished: False if run.max_minutes ended this part before the run's last step; then `model` is the best so far, and
    is not there if nothing has been validated.
    """

    model: Path
    steps: int
    tokens: int
    seconds: float
    validation_bits: float
    best_step: int
    finished: bool = True


def train(
    config: TrainConfig,
    *,
    resume: bool | Literal["auto"] = False,
    force: bool = False,
    allow_changes: bool = False,
) -> TrainResult:
    """Run what `config` describes and leave the model with the fewest validation bits in `<output>/model`.

    resume: go on from the run's last checkpoint; "auto" begins the run if there is none, so that one command serves the
    first and every further part.   force: replace a run that stands in the output directory, once the new one has its
    first checkpoint; if it ends before that, the old one stays.
    allow_changes: resume although optimizer, schedule or clipping are others than before; from here on they count.
    Nothing is written before the whole configuration has been checked against the genome. Of several processes the
    first writes; each returns the same.

    Raises: UsageError, ConfigError, InputFileError, OutputExistsError and the genome's errors before the first step;
    MissingDependencyError without Lightning; NumericsError if a loss or gradient is not finite; MemoryEstimateError,
    WorkerDiedError, OutputError if the machine cannot go on; RunInterruptedError, after a checkpoint, if a signal ends
    the run (SIGINT, SIGTERM, SIGUSR1).
    """
    if config.run.accelerator == "gpu":
        require_gpus(config.run.devices, f"run.accelerator=gpu with run.devices={config.run.devices}")
    config = with_regions(config)
    directory = config.output.directory
    # What stands in the directory is the first process's business; it may have made it by now.
    first = is_first()
    if resume == "auto" and not force:
        resume = has_checkpoint(directory / CHECKPOINTS)
        # What a run left that had not come to its first checkpoint.
        force = not resume and first and _is_run(directory)
    checkpoint = None
    if first or resume:
        checkpoint = _checkpoint_to_resume(config, resume=bool(resume), force=force, allow_changes=allow_changes)
    with genossm.genome.open(config.genome.path) as genome, own_group(), ExitStack() as old_run:
        if checkpoint is not None:
            check_same_reference(checkpoint, genome)
        windows = plan_windows(config, genome)
        torch.manual_seed(config.run.seed)
        model = SequenceModel(config.stack_config())
        model.backbone.recompute(config.run.recompute)
        from genossm.training.fit import fit

        on_first_save = None
        if first and not resume:
            on_first_save = old_run.enter_context(replacing(directory))
        if first:
            _prepare_directory(directory, config)
        outcome = fit(
            config,
            model,
            genome,
            windows,
            metrics=directory / METRICS,
            checkpoints=directory / CHECKPOINTS,
            resume_from=checkpoint,
            on_first_save=on_first_save,
        )
        tokens = config.lengths.tokens(outcome.steps)
        result = TrainResult(
            directory / MODEL, outcome.steps, tokens, outcome.seconds, outcome.best_bits, outcome.best_step,
            outcome.finished,
        )  # fmt: skip
        if outcome.is_global_zero and outcome.best.exists():
            _export(config, genome, outcome.best, result)
    return result


def _checkpoint_to_resume(config: TrainConfig, *, resume: bool, force: bool, allow_changes: bool) -> Path | None:
    directory = config.output.directory
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it. Choose one.")
    if resume:
        checkpoint = find_checkpoint(directory / CHECKPOINTS)
        check_same_run(checkpoint, config, allow_changes=allow_changes)
        check_steps_left(checkpoint, config)
        return checkpoint
    if directory.exists() and not _is_run(directory):
        raise OutputExistsError(
            f"{directory} is no training run (it holds other files and no {CONFIG}), so neither --resume nor --force "
            "touches it. Choose another output.directory."
        )
    if directory.exists() and not force:
        raise OutputExistsError(
            f"{directory} exists already. Pass --resume to go on with the run in it, --force to replace it, or choose "
            "another output.directory."
        )
    return None


def _is_run(directory: Path) -> bool:
    if not directory.is_dir():
        return False
    names = {entry.name for entry in directory.iterdir()}
    return not names or CONFIG in names


def _prepare_directory(directory: Path, config: TrainConfig) -> None:
    (directory / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    with atomic_file(directory / CONFIG, force=True) as temporary:
        temporary.write_text(yaml.safe_dump(config.as_mapping(), sort_keys=False))


def _export(config: TrainConfig, genome: Genome, best: Path, result: TrainResult) -> None:
    """Write the best model as the run's result, with what made it."""
    figures = {
        f"{config.unit} on validation": round(result.validation_bits, 4),
        "training steps": result.steps,
        "bases read in training": result.tokens,
    }
    metrics = {
        "validation_bits_per_base": result.validation_bits,
        "best_step": result.best_step,
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
    }
    provenance = Provenance(
        seed=config.run.seed,
        reference_digest=genome.reference_digest,
        extra={
            "config": config.as_mapping(),
            "metrics": metrics,
            "contigs": contigs_read(config.splits, genome),
        },
    )
    load(best).save_pretrained(result.model, provenance=provenance, figures=figures, force=True)

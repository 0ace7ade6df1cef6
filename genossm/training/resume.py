"""Whether a run can go on from what it left; loads no Lightning, so that a refusal comes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping
from genossm.training.config import TrainConfig, differences

if TYPE_CHECKING:
    from genossm.genome import Genome

LAST = "last.ckpt"

# Keys that may change between the parts of a run: how long, where, how often; not what is learnt or how.
_FREE = (
    *("genome.path", "splits.test", "data.workers", "data.validation_batch", "output.directory", "model.backend"),
    *("run.max_steps", "run.max_tokens", "run.max_minutes", "run.devices", "run.accelerator"),
    *("run.validate_every", "run.checkpoint_every", "run.log_every", "run.recompute"),
    *("run.watch_every", "data.micro_batch", "data.micro_tokens"),
    *("run.nodes", "run.strategy", "run.context_parallel"),
)


# Keys that may change when they are meant to: how a run learns, not what.
_ADJUSTABLE = ("optimizer.", "schedule.", "run.gradient_clip")


def has_checkpoint(directory: Path) -> bool:
    """Whether a run's checkpoint folder holds something to resume from."""
    return (directory / LAST).is_file()


def find_checkpoint(directory: Path) -> Path:
    """`last.ckpt` of a run's checkpoint folder. Raises: InputFileError if the run has none."""
    path = directory / LAST
    if not path.is_file():
        raise InputFileError(f"There is nothing to resume: {path} does not exist. Leave out --resume to start anew.")
    return path


def check_same_run(path: Path, config: TrainConfig, *, allow_changes: bool = False) -> None:
    """Raise ConfigError if the checkpoint belongs to a run that learns something else; InputFileError if unreadable.

    allow_changes: of the optimizer, the schedule and the clipping, as after a NaN.
    """
    with _readable(path):
        # Read and written again, so that a key which a newer version added has its default in it.
        saved = from_mapping(TrainConfig, _kept(path)["config"]).as_mapping()
    changed = [key for key in differences(saved, config.as_mapping()) if key not in _FREE]
    others = [key for key in changed if not key.startswith(_ADJUSTABLE)]
    if others or (changed and not allow_changes):
        remedy = "Resume with the same ones, or start anew with --force."
        if not others:
            remedy = "Resume with the same ones, or pass --allow-changes if that is what you want."
        raise ConfigError(
            f"The run in {path.parent.parent} was made with other values of {', '.join(changed)}. {remedy}"
        )


def check_steps_left(path: Path, config: TrainConfig) -> None:
    """Raise ConfigError if the checkpoint's run has more steps than the configuration asks for.

    As many is a run that is done, which a resume leaves as it is.   Raises also: InputFileError if unreadable.
    """
    with _readable(path):
        done = _read(path)["global_step"]
    total = config.total_steps
    if total is not None and done > total:
        asked = f"run.max_steps is {total}"
        if config.run.max_tokens is not None:
            asked = f"run.max_tokens is {config.run.max_tokens:,}, which is {total} steps"
        raise ConfigError(
            f"The run in {path.parent.parent} has {done} steps already; {asked}. Raise it to go on with the run, or "
            "start anew with --force."
        )


def check_same_reference(path: Path, genome: Genome) -> None:
    """Raise ConfigError if the checkpoint's run has read another genome than `genome`, by whatever name.

    A FASTA and the store that was built from it are the same genome; a checkpoint of an earlier version does not say.
    """
    with _readable(path):
        saved = _kept(path).get("reference_digest")
    if saved is not None and saved != genome.reference_digest:
        raise ConfigError(
            f"The run in {path.parent.parent} was made on another reference than {genome.name}: its digest is "
            f"{saved[:12]}, wanted {genome.reference_digest[:12]}. Resume with the reference that it was made on "
            "(genossm genome verify STORE --against FASTA compares two), or start anew with --force."
        )


def _kept(path: Path) -> dict[str, Any]:
    """What `Checkpoints` keeps about the run."""
    return _read(path)["callbacks"]["Checkpoints"]


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, ConfigError) as error:
        raise InputFileError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). Start anew with --force."
        ) from error

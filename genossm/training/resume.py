"""Whether a run can go on from what it left; loads no Lightning, so that a refusal comes at once."""

from __future__ import annotations

from pathlib import Path

import torch

from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping
from genossm.training.config import TrainConfig, differences

LAST = "last.ckpt"

# Keys that may change between the parts of a run: how long, where, how often; not what is learnt or how.
_FREE = (
    *("genome.path", "splits.test", "data.workers", "data.validation_batch", "output.directory", "model.backend"),
    *("run.max_steps", "run.max_tokens", "run.max_minutes", "run.devices"),
    *("run.validate_every", "run.checkpoint_every", "run.log_every", "run.recompute"),
    *("run.watch_every",),
    *("run.nodes", "run.strategy", "run.context_parallel"),
)


def find_checkpoint(directory: Path) -> Path:
    """`last.ckpt` of a run's checkpoint folder. Raises: InputFileError if the run has none."""
    path = directory / LAST
    if not path.is_file():
        raise InputFileError(f"There is nothing to resume: {path} does not exist. Leave out --resume to start anew.")
    return path


def check_same_run(path: Path, config: TrainConfig) -> None:
    """Raise ConfigError if the checkpoint belongs to a run that learns something else; InputFileError if unreadable."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # Read and written again, so that a key which a newer version added has its default in it.
        saved = from_mapping(TrainConfig, content["callbacks"]["Checkpoints"]["config"]).as_mapping()
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, ConfigError) as error:
        raise InputFileError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). Start anew with --force."
        ) from error
    changed = [key for key in differences(saved, config.as_mapping()) if key not in _FREE]
    if changed:
        raise ConfigError(
            f"The run in {path.parent.parent} was made with other values of {', '.join(changed)}. "
            "Resume with the same ones, or start anew with --force."
        )

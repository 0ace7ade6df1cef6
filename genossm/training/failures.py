"""What can end a run from outside, in a user's words: memory that is full, a loader process that died."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from genossm.core.errors import GenossmError, MemoryEstimateError, OutputError, WorkerDiedError
from genossm.models.memory import PassMemoryError, available_bytes
from genossm.training.config import TrainConfig
from genossm.training.estimate import estimate
from genossm.training.numerics import how_to_go_on
from genossm.training.resume import has_checkpoint

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (is killed by signal: ([^.]*)|exited unexpectedly)")
_CPU_MEMORY = "can't allocate memory"
# The rest goes to libraries, and to pieces too small to use.
_USABLE = 0.95


@contextmanager
def readable_failures(config: TrainConfig, device: torch.device, checkpoints: Path) -> Iterator[None]:
    """Turn failures of the machine inside the block into errors that say what to change.

    checkpoints: the run's folder of them, by which they say how to go on.
    Raises: WorkerDiedError, MemoryEstimateError, OutputError; anything else as it came.
    """
    try:
        yield
    except OutputError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise _full_disk(config, error.__cause__, _go_on(checkpoints)) from error
    except PassMemoryError as error:
        raise MemoryEstimateError(f"{error.shortage} {_smaller_passes(config)}") from error
    except GenossmError as error:
        raise _without_traceback(error) from error
    except torch.OutOfMemoryError as error:
        raise MemoryEstimateError(_out_of_memory(config, device, str(error), _go_on(checkpoints))) from error
    except RuntimeError as error:
        died = _WORKER.search(str(error))
        if died is not None:
            raise WorkerDiedError(_worker_died(config, died.group(1), died.group(3), _go_on(checkpoints))) from error
        if _CPU_MEMORY in str(error):
            raise MemoryEstimateError(_out_of_memory(config, device, str(error), _go_on(checkpoints))) from error
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _full_disk(config, error, _go_on(checkpoints)) from error


def _go_on(checkpoints: Path) -> str:
    there = has_checkpoint(checkpoints)
    return "--resume goes on from the last checkpoint." if there else how_to_go_on(has_checkpoint=False)


def _full_disk(config: TrainConfig, error: OSError, go_on: str) -> OutputError:
    return OutputError(
        f"Cannot write to {config.output.directory}: {error.strerror}. What was written before is whole. Make room; "
        f"{go_on}"
    )


def _worker_died(config: TrainConfig, pids: str, signal_name: str | None, go_on: str) -> str:
    how = f"was killed ({signal_name.strip()})" if signal_name else "ended unexpectedly"
    return (
        f"A loader process (pid {pids.strip()}) {how}. The machine, the container or /dev/shm ran out of memory, or "
        f"somebody ended it. Lower data.workers (it is {config.data.workers}; 0 reads in the training process itself), "
        f"or ask for more memory. {go_on}"
    )


def _smaller_passes(config: TrainConfig) -> str:
    """The keys that a training run has for it; what inference would do is no help here."""
    ways = "data.micro_batch or data.micro_tokens, by which a batch is read in parts"
    if config.stack_config().direction == "causal":
        ways += ", or data.segment, by which a window is"
    return (
        f"Set {ways}; validation reads data.validation_batch windows at once. genossm train --estimate says what a "
        "step takes."
    )


def _out_of_memory(config: TrainConfig, device: torch.device, message: str, go_on: str) -> str:
    """What was asked for, what is there, and the length that would fit."""
    found = estimate(config, device)
    # What this process itself holds goes when it ends, and is in the estimate again.
    there = available_bytes(device)
    found = replace(found, available=None if there is None else int(there * _USABLE))
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", message)
    asked_for = f" (asked for {asked.group(1)} more)" if asked else ""
    begin = f"{device} ran out of memory{asked_for}. "
    if there is None:
        return f"{begin}A step needs about {found.peak / 1e9:.2f} GB. Lower data.micro_batch or data.window. {go_on}"
    if found.fits:
        return (
            f"{begin}A training step needs about {found.peak / 1e9:.2f} GB of {there / 1e9:.2f} GB, so something else "
            "took it: another program on the device (nvidia-smi shows it), validation (data.validation_batch, "
            "data.validation_window), or pieces of memory too small to use "
            f"(PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True). {go_on}"
        )
    return (
        f"{begin}A step of {found.batch} x {found.window:,} bases needs about {found.peak / 1e9:.2f} GB of "
        f"{there / 1e9:.2f} GB. {found.remedy} A smaller data.micro_batch can be resumed with; a window cannot."
    )


def _without_traceback(error: GenossmError) -> GenossmError:
    """An error of a loader process comes wrapped in its traceback; the last line is what it said."""
    text = str(error)
    if "Original Traceback (most recent call last)" not in text:
        return error
    last = text.strip().splitlines()[-1]
    return type(error)(last.partition(": ")[2] or last)

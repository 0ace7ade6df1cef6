"""Runs that end before their last step: out of time, or told to stop. They leave a checkpoint of where they stood."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from genossm.core.errors import RunInterruptedError
from genossm.data.lightning import require_lightning
from genossm.parallel import agreed, largest

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = require_lightning().Callback

logger = logging.getLogger(__name__)

# What Ctrl-C, `kill`, batch systems that preempt and Slurm's --signal send. Windows has no SIGUSR1.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Stopped(Exception):  # noqa: N818  (no error: it says how a run ended)
    """Raised between two steps, after the checkpoint. number: of the signal that asked for it, None for time."""

    def __init__(self, step: int, number: int | None) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.number = step, number


class Stops(Callback):
    """Ends a run before a step begins, once a signal has come or this part of it has taken `seconds`.

    save: writes the checkpoint.   Where a checkpoint is taken there is nothing half done, so that a run in parts is the
    run in one piece; the step under way, and the validation that is due after it, are finished first. A second Ctrl-C
    does not wait.
    """

    def __init__(self, seconds: float | None, save: Callable[[Trainer], None]) -> None:
        self.seconds, self.save = seconds, save
        self.number: int | None = None
        self._started, self._first = time.monotonic(), 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # A part does one step at least, or a run in short parts would never end.
        moved = trainer.global_step > self._first
        late = self.seconds is not None and moved and time.monotonic() - self._started >= self.seconds
        if not agreed(late or self.number is not None, pl_module.device):
            return
        # Some processes may not have got the signal yet; each is to end with its number.
        number = largest(self.number or 0, pl_module.device)
        self.save(trainer)
        raise Stopped(trainer.global_step, number or None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.number == number:
            raise RunInterruptedError(
                f"Stopped at once by a second {name}. --resume goes on from the last checkpoint.", number
            )
        self.number = number
        logger.warning("%s: stopping with a checkpoint, as soon as the step under way is done.", name)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: it was not Python that had set it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

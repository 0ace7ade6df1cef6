"""How fast a run trains, what share of a step it waits for data, and how much of the GPU's memory it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from genossm.data.lightning import require_lightning

if TYPE_CHECKING:
    from lightning.pytorch.profilers import Profiler
else:
    Profiler = require_lightning().profilers.Profiler


class Waiting(Profiler):
    """Counts the seconds in which the training loop asks the loader for its next batch, and nothing else.

    A step ends with a transfer from the GPU, so that a GPU has little left to do while its loop stands here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._asked = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith(".train_dataloader_next"):
            self._asked = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith(".train_dataloader_next"):
            self.seconds += time.perf_counter() - self._asked


@dataclass(frozen=True)
class Figures:
    """Of some steps. gpu_peak_bytes: the most that tensors took at once on this process's GPU; None without one."""

    bases_per_second: float
    data_wait_share: float
    gpu_peak_bytes: int | None


@dataclass
class _Sums:
    bases: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, other: _Sums) -> None:
        self.bases += other.bases
        self.seconds += other.seconds
        self.waited += other.waited


class Pace:
    """Times training steps, without validation and without the first step of a part, which compiles kernels.

    `since_last` gives the figures since it was asked before, `whole` those of the run with all its parts.
    """

    def __init__(self) -> None:
        self.waiting = Waiting()
        self._recent, self._before = _Sums(), _Sums()
        self._mark = self._waited = 0.0
        self._first = True
        self._peak: int | None = None

    def state_dict(self) -> dict[str, Any]:
        whole = self._total()
        return {"bases": whole.bases, "seconds": whole.seconds, "waited": whole.waited, "peak": self._peak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before = _Sums(state["bases"], state["seconds"], state["waited"])
        self._peak = state["peak"]

    def begin(self) -> None:
        """The time from here on belongs to the next step: called when training begins and after each validation."""
        self._mark, self._waited = time.perf_counter(), self.waiting.seconds

    def step_done(self, bases: int) -> None:
        """Called after each step, with what it read over all devices."""
        began, waited = self._mark, self._waited
        self.begin()
        if self._first:
            self._first = False
            return
        self._recent.add(_Sums(bases, self._mark - began, self._waited - waited))

    def since_last(self, device: torch.device) -> Figures | None:
        """None if no step has been timed since."""
        peak = _peak_bytes(device)
        if peak is not None:
            self._peak = max(peak, self._peak or 0)
        recent, self._recent = self._recent, _Sums()
        self._before.add(recent)
        return self._figures(recent, peak)

    def whole(self) -> Figures | None:
        """None if no step has been timed."""
        return self._figures(self._total(), self._peak)

    def sentence(self) -> str | None:
        """`whole` for people; None if no step has been timed."""
        figures = self.whole()
        if figures is None:
            return None
        words = (
            f"{figures.bases_per_second:,.0f} bases a second in training steps, "
            f"{figures.data_wait_share:.1%} of it waiting for data"
        )
        if figures.gpu_peak_bytes is not None:
            words += f", at most {figures.gpu_peak_bytes / 1e9:.2f} GB of GPU memory"
        return words

    def seconds_for(self, bases: int) -> float | None:
        """What so many more bases take at the run's pace so far, without validation; None if no step has been timed."""
        whole = self._total()
        return whole.seconds / whole.bases * bases if whole.bases else None

    def _total(self) -> _Sums:
        whole = _Sums()
        whole.add(self._before)
        whole.add(self._recent)
        return whole

    def _figures(self, sums: _Sums, peak: int | None) -> Figures | None:
        if not sums.bases:
            return None
        seconds = max(sums.seconds, 1e-9)
        return Figures(sums.bases / seconds, sums.waited / seconds, peak)


def _peak_bytes(device: torch.device) -> int | None:
    """The most since it was asked before; the count starts anew."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak

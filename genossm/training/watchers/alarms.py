"""A warning when a run begins to go wrong, while its numbers are still numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genossm.training.watchers.measures import BLOCK, DT, OTHERS, STATE
from genossm.training.watchers.usual import Episode, Usual

logger = logging.getLogger(__name__)

# A loss this far above its mean is a spike; the other figures are judged by their logarithms.
_SPIKE_BITS = 0.1
_TENFOLD = math.log(10.0)
_LOSS, _NORM = "loss", "norm"
_CALM_STEPS, _CALM_LOOKS = 50, 5
_REMEDY = (
    "If it does not come back: stop (Ctrl-C), lower optimizer.learning_rate or run.gradient_clip, and go on with "
    "--resume --allow-changes"
)
_WORDS = {
    _LOSS: "the loss is {value:.4g} bits per base, {usual:.4g} are usual; the step read {windows}. " + _REMEDY,
    _NORM: "the norm of all gradients is {value:.3g}, {usual:.3g} is usual; the step read {windows}. " + _REMEDY,
    BLOCK: "the gradients of {where} have the norm {value:.3g}, {usual:.3g} is usual. " + _REMEDY,
    DT: "the gradients of the step sizes (dt_proj) of {where} have the norm {value:.3g}, {usual:.3g} is usual; step "
    "sizes that run away end in NaN. " + _REMEDY,
    STATE: "the states of {where} have a root mean square of {value:.3g}, {usual:.3g} is usual: more goes in than is "
    "forgotten. " + _REMEDY,
}


class Alarms:
    """Warns, once an episode, of a figure that is unusually high.

    A loss more than 0.1 bits and six standard deviations above its running mean; the norm of all gradients, those of
    blocks and of step sizes, and the sizes of states, ten times and six deviations above theirs.
    """

    def __init__(self) -> None:
        self._usual: dict[str, Usual] = {}
        self._episodes = {kind: Episode(_CALM_STEPS if kind in (_LOSS, _NORM) else _CALM_LOOKS) for kind in _WORDS}

    def state_dict(self) -> dict[str, Any]:
        return {name: usual.state_dict() for name, usual in self._usual.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, state in state_dict.items():
            self._usual_of(name).load_state_dict(state)

    def look(
        self, step: int, bits: float, norm: float, measured: Mapping[str, float], windows: Sequence[object]
    ) -> None:
        """Judge what a step gave. measured: figures of `Measures` by name, where the step has them."""
        self._judge(step, _LOSS, {_LOSS: bits}, windows)
        self._judge(step, _NORM, {_NORM: norm}, windows)
        for kind in (BLOCK, DT, STATE):
            figures = {name: value for name, value in measured.items() if name.startswith(f"{kind}.")}
            if figures:
                self._judge(step, kind, figures, windows)

    def _judge(self, step: int, kind: str, figures: Mapping[str, float], windows: Sequence[object]) -> None:
        """Judge the figures of one kind, and warn of the worst if an episode begins."""
        excesses: dict[str, tuple[float, float]] = {}
        for name, value in figures.items():
            usual, size = self._usual_of(name), _size(kind, value)
            mean = usual.mean
            if usual.add(size):
                excesses[name] = size - mean, mean
        if not self._episodes[kind].begins(bool(excesses)):
            return
        worst = max(excesses, key=lambda name: excesses[name][0])
        mean = excesses[worst][1]
        usually = mean if kind == _LOSS else math.exp(mean)
        words = _WORDS[kind].format(value=figures[worst], usual=usually, where=_where(worst), windows=_shown(windows))
        logger.warning("Step %s: %s.", f"{step:,}", words)

    def _usual_of(self, name: str) -> Usual:
        if name not in self._usual:
            margin = _SPIKE_BITS if name == _LOSS else _TENFOLD
            self._usual[name] = Usual(margin, patience=20 if name in (_LOSS, _NORM) else 8)
        return self._usual[name]


def _size(kind: str, value: float) -> float:
    """The loss as it is; anything else by its logarithm, since it is judged by factors."""
    if kind == _LOSS:
        return value
    return math.log(value) if value > 0 else math.nan


def _where(name: str) -> str:
    layer = name.partition(".")[2]
    return "embedding, last norm and head" if layer == OTHERS else f"block {layer}"


def _shown(windows: Sequence[object]) -> str:
    if not windows:
        return "no window"
    return f"{windows[0]} and {len(windows) - 1} more windows" if len(windows) > 1 else str(windows[0])

"""Whether a device computes what a model should say: asked before every run, and at length by `score --self-test`.

What it should say is kept beside the shipped models, and else computed by the definition (see `expected`). The device
runs the model as scoring does: causal models in two pieces with the state handed on, masked ones with letters hidden.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genossm.core.errors import SelfTestError
from genossm.inference import log_probabilities, stream
from genossm.models import SequenceModel
from genossm.variants.expected import (
    LONG,
    SHORT,
    Expected,
    Kept,
    ask,
    expected_of,
    score_options,
    scored_variants,
    self_test_genome,
)
from genossm.variants.scorer import Scorer

TOLERANCE = 1e-3
"""Nats, for the sum over a window of at most 1,024 letters: what two ways to a score may differ by."""
# Above this many weights the definition takes longer than what it should protect.
_QUICK = 20_000_000


@dataclass(frozen=True)
class Check:
    """what: was compared.   error, allowed: the largest difference found, in the unit of `what`."""

    what: str
    error: float
    allowed: float = TOLERANCE

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.what}\t{self.error:.2e}\t{self.allowed:.0e}\t{'ok' if self.passed else 'WRONG'}"


def require_device(model: SequenceModel, directory: Path | None = None) -> None:
    """Compare one short window on the model's device with what it should say.

    directory: the model's; what is kept there needs no definition. Without it models so large that the definition takes
    longer than a second are not asked; `self_test` asks any.
    Raises: SelfTestError if the device computes other numbers.
    """
    expected = expected_of(model, directory)
    if isinstance(expected, Kept) or model.num_parameters() <= _QUICK:
        _require(model, [_window_check(model, expected, SHORT)])


def self_test(model: SequenceModel, directory: Path | None = None) -> list[Check]:
    """Compare windows, and scores of every method and kind of variant, with what the model should say.

    Raises: SelfTestError if the device computes other numbers.
    """
    expected = expected_of(model, directory)
    windows = [_window_check(model, expected, length) for length in (SHORT, LONG)]
    checks = [*windows, *_score_checks(model, expected)]
    _require(model, checks)
    return checks


def report(model: SequenceModel, name: str, directory: Path | None = None) -> Iterator[str]:
    """`self_test` as lines of a table. Raises: SelfTestError."""
    started = time.perf_counter()
    yield "what\terror\tallowed\tresult"
    yield from map(str, self_test(model, directory))
    yield f"{name} on {_device(model)}\t{time.perf_counter() - started:.1f} s\t\tok"


@torch.inference_mode()
def _window_check(model: SequenceModel, expected: Expected, length: int) -> Check:
    """The largest error of a sum over the beginning of a window: a small bias shows as well as one wrong letter."""
    ids, spoken, asked = ask(model, length)
    if model.objective == "masked":
        values = log_probabilities(model(ids.to(model.device)).logits[0].double(), dtype=torch.float64).cpu()
        found = values.gather(1, spoken.unsqueeze(1)).squeeze(1)[asked]
    else:
        found = _in_pieces(model, ids, spoken)[asked]
    error = (found.double() - expected.ln_p(length)).cumsum(0).abs().max()
    return Check(f"ln p of {length:,} letters, nats", _number(float(error)))


def _in_pieces(model: SequenceModel, ids: Tensor, spoken: Tensor) -> Tensor:
    """ln p of the letters after each input, from two pieces with the state handed on."""
    segments = stream(model, ids, segment_length=len(spoken) // 2 + 1)
    values = torch.cat([log_probabilities(segment.logits)[0] for segment in segments])
    return values.cpu().gather(1, spoken.unsqueeze(1)).squeeze(1)


def _score_checks(model: SequenceModel, expected: Expected) -> list[Check]:
    """Scores as the command gives them, on both strands, of a few kinds of variants."""
    variants = scored_variants(model.objective)
    with self_test_genome() as genome:
        scorer = Scorer(model, genome, score_options(model.objective))
        scored = scorer.score([scorer.locate(one) for one in variants])
    found, wanted = np.array([one.numbers for one in scored], dtype=np.float64), expected.scores()
    errors = np.abs(found - wanted).max(axis=0)
    # A ratio sums at most 1,024 letters. Distances have a scale of their own, and an end in float32.
    allowed = [TOLERANCE, *(1e-5 + TOLERANCE * np.abs(wanted[:, 1:]).max(axis=0))]
    return [
        Check(f"{tag.name} of {len(variants)} variants", _number(float(error)), float(most))
        for tag, error, most in zip(scorer.tags, errors, allowed, strict=True)
    ]


def _number(error: float) -> float:
    """NaN is as wrong as can be, and compares as nothing."""
    return error if np.isfinite(error) else float("inf")


def _require(model: SequenceModel, checks: list[Check]) -> None:
    wrong = [check for check in checks if not check.passed]
    if wrong:
        raise SelfTestError(
            f"{_device(model)} computes other numbers than it should: {wrong[0].what} are off by "
            f"{wrong[0].error:.2g}, allowed are {wrong[0].allowed:g}. Nothing was scored. Run `genossm score "
            "--self-test`, try --device cpu, and check driver, PyTorch and environment variables such as "
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE."
        )


def _device(model: SequenceModel) -> str:
    if model.device.type != "cuda":
        return str(model.device)
    return f"{model.device} ({torch.cuda.get_device_name(model.device)})"

"""Whether a device computes what the definition says: asked before every run, and at length by `score --self-test`.

The definition is the model in float64 on the CPU, with its operators as loops over the sequence. The device runs the
model as scoring does: causal models in two pieces with the state handed on, masked ones with letters hidden.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import genossm.genome
from genossm.core.errors import SelfTestError
from genossm.inference import log_probabilities, stream
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import definition
from genossm.variants.options import ScoringOptions
from genossm.variants.scorer import Scorer

TOLERANCE = 1e-3
"""Nats, for the sum over a window of at most 1,024 letters: what two ways to a score may differ by."""
# Enough for every part of a kernel that a short sequence reaches; a loop over it takes a CPU a fraction of a second.
_LETTERS = 128
_LONG = 1024
# Above this many weights the definition takes longer than what it should protect.
_QUICK = 20_000_000
_HIDDEN = 8
_CONTEXT = 128


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


def require_device(model: SequenceModel) -> None:
    """Compare one short window on the model's device with the definition.

    Models so large that this takes longer than a second are not asked; `self_test` asks any.
    Raises: SelfTestError if the device computes other numbers.
    """
    if model.num_parameters() <= _QUICK:
        _require(model, [_window_check(model, reference_of(model), _LETTERS)])


def self_test(model: SequenceModel) -> list[Check]:
    """Compare windows, and scores of every method and kind of variant, with the definition.

    Raises: SelfTestError if the device computes other numbers.
    """
    reference = reference_of(model)
    windows = [_window_check(model, reference, length) for length in (_LETTERS, _LONG)]
    checks = [*windows, *_score_checks(model, reference)]
    _require(model, checks)
    return checks


def report(model: SequenceModel, name: str) -> Iterator[str]:
    """`self_test` as lines of a table. Raises: SelfTestError."""
    started = time.perf_counter()
    yield "what\terror\tallowed\tresult"
    yield from map(str, self_test(model))
    yield f"{name} on {_device(model)}\t{time.perf_counter() - started:.1f} s\t\tok"


def reference_of(model: SequenceModel) -> SequenceModel:
    """The same model in float64 on the CPU, with the operators' definitions."""
    slow = SequenceModel(replace(model.config, backend="reference"), model.tokenizer).double()
    slow.load_state_dict({name: tensor.cpu().double() for name, tensor in model.state_dict().items()})
    return slow.eval()


def letters(length: int) -> str:
    """The same sequence on every machine and with every version of every library."""
    text = ""
    for number in count():
        if len(text) >= length:
            return text[:length]
        digest = hashlib.sha256(f"genossm self-test {number}".encode()).digest()
        text += "".join("ACGT"[byte & 3] for byte in digest)
    raise AssertionError


@torch.inference_mode()
def _window_check(model: SequenceModel, reference: SequenceModel, length: int) -> Check:
    """The largest error of a sum over the beginning of a window: a small bias shows as well as one wrong letter."""
    sequence = letters(length)
    ids = model.encode(sequence, add_bos=model.begins_with_bos)
    spoken = torch.tensor(["ACGT".index(letter) for letter in sequence])
    if model.objective == "masked":
        ids[0, ::_HIDDEN] = model.tokenizer.mask_id
        found, wanted = (_ln_p(one, ids, spoken)[::_HIDDEN] for one in (model, reference))
    else:
        ahead = spoken[1 - int(model.begins_with_bos) :]
        found, wanted = _in_pieces(model, ids, ahead), _ln_p(reference, ids[:, : len(ahead)], ahead)
    error = (found.double().cpu() - wanted).cumsum(0).abs().max()
    return Check(f"ln p of {length:,} letters, nats", _number(float(error)))


def _in_pieces(model: SequenceModel, ids: Tensor, spoken: Tensor) -> Tensor:
    """ln p of the letters after each input, from two pieces with the state handed on."""
    segments = stream(model, ids[:, : len(spoken)], segment_length=len(spoken) // 2 + 1)
    values = torch.cat([log_probabilities(segment.logits)[0] for segment in segments])
    return values.cpu().gather(1, spoken.unsqueeze(1)).squeeze(1)


def _ln_p(model: SequenceModel, ids: Tensor, spoken: Tensor) -> Tensor:
    values = log_probabilities(model(ids.to(model.device)).logits[0].double(), dtype=torch.float64)
    return values.cpu().gather(1, spoken.unsqueeze(1)).squeeze(1)


def _score_checks(model: SequenceModel, reference: SequenceModel) -> list[Check]:
    """Scores as the command gives them, on both strands, of a few kinds of variants."""
    sequence = letters(2 * _CONTEXT)
    methods = ("llr" if model.objective == "causal" else "mlm", "embedding")
    options = ScoringOptions(context=_CONTEXT, horizon=None, methods=methods, both_strands=True)
    variants = _variants(sequence, 100, changes_of_length=model.objective == "causal")
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder:
        path = Path(folder) / "self-test.fa"
        path.write_text(f">1\n{sequence}\n")
        with genossm.genome.open(path) as genome:
            scorer = Scorer(model, genome, options)
            scored = scorer.score([scorer.locate(one) for one in variants])
            found = np.array([one.numbers for one in scored], dtype=np.float64)
            wanted = np.array([_defined(reference, genome, one) for one in variants])
    errors = np.abs(found - wanted).max(axis=0)
    # A ratio sums at most 1,024 letters. Distances have a scale of their own, and an end in float32.
    allowed = [TOLERANCE, *(1e-5 + TOLERANCE * np.abs(wanted[:, 1:]).max(axis=0))]
    return [
        Check(f"{tag.name} of {len(variants)} variants", _number(float(error)), float(most))
        for tag, error, most in zip(scorer.tags, errors, allowed, strict=True)
    ]


def _variants(sequence: str, start0: int, *, changes_of_length: bool) -> list[Variant]:
    """A substitution of one letter, one of several, and two indels, which take the masked definition minutes."""
    base, after = sequence[start0], sequence[start0 + 1 : start0 + 4]
    other = {"A": "C", "C": "A", "G": "T", "T": "G"}
    several = "".join(other[letter] for letter in base + after)
    substitutions = [Variant("1", start0 + 1, base, other[base]), Variant("1", start0 + 1, base + after, several)]
    insertion = Variant("1", start0 + 1, base, base + other[base] + "ACG")
    deletion = Variant("1", start0 + 1, base + after, base)
    return [*substitutions, *([insertion, deletion] if changes_of_length else [])]


def _defined(model: SequenceModel, genome: genossm.genome.Genome, variant: Variant) -> list[float]:
    """The numbers of a variant by the slow definition, the mean of both strands."""
    ratio: list[float] = []
    for strand in "+-":
        if model.objective == "causal":
            horizon = _CONTEXT // 4
            ratio.append(
                definition.causal_llr(model, genome, variant, context=_CONTEXT, horizon=horizon, strand=strand)
            )
        else:
            ratio.append(definition.masked_llr(model, genome, variant, context=_CONTEXT, strand=strand))
    distances = [definition.embedding_distances(model, genome, variant, context=_CONTEXT, strand=one) for one in "+-"]
    return [float(np.mean(ratio)), *np.mean(distances, axis=0).tolist()]


def _number(error: float) -> float:
    """NaN is as wrong as can be, and compares as nothing."""
    return error if np.isfinite(error) else float("inf")


def _require(model: SequenceModel, checks: list[Check]) -> None:
    wrong = [check for check in checks if not check.passed]
    if wrong:
        raise SelfTestError(
            f"{_device(model)} computes other numbers than the definition: {wrong[0].what} are off by "
            f"{wrong[0].error:.2g}, allowed are {wrong[0].allowed:g}. Nothing was scored. Run `genossm score "
            "--self-test`, try --device cpu, and check driver, PyTorch and environment variables such as "
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE."
        )


def _device(model: SequenceModel) -> str:
    if model.device.type != "cuda":
        return str(model.device)
    return f"{model.device} ({torch.cuda.get_device_name(model.device)})"

"""What a model should say, on sequences and variants that are the same everywhere: the other side of the self-test.

By the definition: the model in float64 on the CPU, with its operators as loops over the sequence. Or as a model's
directory holds it, where somebody has kept what the definition said: then no part of it is computed by the machine that
is tested.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import genossm.genome
from genossm.core.atomic import atomic_file
from genossm.core.errors import InputFileError
from genossm.core.provenance import Provenance
from genossm.inference import log_probabilities
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import definition
from genossm.variants.options import ScoringOptions

FILE_NAME = "self_test.json"
FORMAT, FORMAT_VERSION = "genossm-self-test", 1
SHORT, LONG = 128, 1024
"""Letters of a window: enough for every part of a kernel that a short sequence reaches; and what a tolerance is for."""
CONTEXT = 128
_HIDDEN = 8
_DIGITS = 9


class Expected(Protocol):
    """What a model should say."""

    def ln_p(self, length: int) -> Tensor:
        """ln p, float64, of the letters that `ask` asks of a window of `SHORT` or `LONG` letters."""
        ...

    def scores(self) -> NDArray[np.float64]:
        """(variants, numbers) of `scored_variants` by `score_options`, the mean of both strands."""
        ...


class Defined:
    """By the definition, computed when it is asked for."""

    def __init__(self, model: SequenceModel) -> None:
        self._model = reference_of(model)

    @torch.inference_mode()
    def ln_p(self, length: int) -> Tensor:
        ids, spoken, asked = ask(self._model, length)
        values = log_probabilities(self._model(ids).logits[0].double(), dtype=torch.float64)
        return values.gather(1, spoken.unsqueeze(1)).squeeze(1)[asked]

    def scores(self) -> NDArray[np.float64]:
        with self_test_genome() as genome:
            return np.array([_defined(self._model, genome, one) for one in scored_variants(self._model.objective)])


@dataclass(frozen=True, eq=False)
class Kept:
    """From a model's directory.   windows: by length.   rows: of numbers, one a variant."""

    windows: dict[int, Sequence[float]]
    rows: NDArray[np.float64]

    def ln_p(self, length: int) -> Tensor:
        return torch.tensor(self.windows[length], dtype=torch.float64)

    def scores(self) -> NDArray[np.float64]:
        return self.rows


def write_expected(directory: Path, model: SequenceModel, *, force: bool = False) -> Path:
    """Keep what the definition says of a model in its directory. Takes a minute or so.

    model: as scoring loads it, in float32.
    Raises: OutputExistsError.
    """
    defined = Defined(model)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ln_p": {str(length): _short(defined.ln_p(length).tolist()) for length in (SHORT, LONG)},
        "scores": [_short(row) for row in defined.scores().tolist()],
        "provenance": Provenance(model_digest=model.digest()).as_dict(),
    }
    with atomic_file(directory / FILE_NAME, force=force) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
    return directory / FILE_NAME


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def expected_of(model: SequenceModel, directory: Path | None = None) -> Expected:
    """What is kept in the model's directory, if it is of this model; else the definition.

    Raises: InputFileError for a file that cannot be read.
    """
    path = None if directory is None else directory / FILE_NAME
    if path is None or not path.is_file():
        return Defined(model)
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content["format"] != FORMAT or content["format_version"] > FORMAT_VERSION:
            raise InputFileError(f"{path} holds no values that this genossm reads. Install a newer genossm.")
        windows = {int(length): values for length, values in content["ln_p"].items()}
        kept = Kept(windows, np.array(content["scores"], dtype=np.float64))
        # A copy of a directory whose weights were trained on has the file of its ancestor.
        return kept if content["provenance"]["model_digest"] == model.digest() else Defined(model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputFileError(f"{path} cannot be read ({error}). Take the model from its source again.") from error


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


def ask(model: SequenceModel, length: int) -> tuple[Tensor, Tensor, slice]:
    """(1, length) ids on the CPU, the letter that each output speaks of, and which of them are asked for."""
    sequence = letters(length)
    ids = model.encode(sequence, add_bos=model.begins_with_bos).cpu()
    spoken = torch.tensor(["ACGT".index(letter) for letter in sequence])
    if model.objective == "masked":
        ids[0, ::_HIDDEN] = model.tokenizer.mask_id
        return ids, spoken, slice(None, None, _HIDDEN)
    ahead = spoken[1 - int(model.begins_with_bos) :]
    return ids[:, : len(ahead)], ahead, slice(None)


def score_options(objective: str) -> ScoringOptions:
    """Under which variants are scored: every method, both strands."""
    methods = ("llr" if objective == "causal" else "mlm", "embedding")
    return ScoringOptions(context=CONTEXT, horizon=None, methods=methods, both_strands=True)


@contextmanager
def self_test_genome() -> Iterator[genossm.genome.Genome]:
    """One contig, "1", of two windows."""
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder:
        path = Path(folder) / "self-test.fa"
        path.write_text(f">1\n{letters(2 * CONTEXT)}\n")
        with genossm.genome.open(path) as genome:
            yield genome


def scored_variants(objective: str) -> list[Variant]:
    """A substitution of one letter, one of several, and two indels, which take the masked definition minutes."""
    sequence, start0 = letters(2 * CONTEXT), 100
    base, after = sequence[start0], sequence[start0 + 1 : start0 + 4]
    other = {"A": "C", "C": "A", "G": "T", "T": "G"}
    several = "".join(other[letter] for letter in base + after)
    substitutions = [Variant("1", start0 + 1, base, other[base]), Variant("1", start0 + 1, base + after, several)]
    insertion = Variant("1", start0 + 1, base, base + other[base] + "ACG")
    deletion = Variant("1", start0 + 1, base + after, base)
    return [*substitutions, *([insertion, deletion] if objective == "causal" else [])]


def _defined(model: SequenceModel, genome: genossm.genome.Genome, variant: Variant) -> list[float]:
    """The numbers of a variant by the slow definition, the mean of both strands."""
    ratio: list[float] = []
    for strand in "+-":
        if model.objective == "causal":
            horizon = CONTEXT // 4
            ratio.append(definition.causal_llr(model, genome, variant, context=CONTEXT, horizon=horizon, strand=strand))
        else:
            ratio.append(definition.masked_llr(model, genome, variant, context=CONTEXT, strand=strand))
    distances = [definition.embedding_distances(model, genome, variant, context=CONTEXT, strand=one) for one in "+-"]
    return [float(np.mean(ratio)), *np.mean(distances, axis=0).tolist()]

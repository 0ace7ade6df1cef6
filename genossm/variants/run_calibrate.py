"""What `genossm calibrate` does: the scores of a background set, sketched and kept with the model."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genossm.genome
from genossm.core.errors import InputFileError, UsageError
from genossm.core.provenance import Provenance, file_sha256
from genossm.genome import Genome
from genossm.variants.assembly import AssemblyCheck
from genossm.variants.calibration import (
    FILE_NAME,
    KINDS,
    Calibration,
    Entry,
    Settings,
    allele_kind,
    load_calibration,
    rounded,
)
from genossm.variants.info_fields import allele_covariates, allele_number, allele_text, info_fields
from genossm.variants.locate import BLOCK, Allele
from genossm.variants.opening import Request
from genossm.variants.options import ScoringOptions
from genossm.variants.sketch import Sketch
from genossm.variants.status import Status
from genossm.variants.vcf_header import STATUS, ScoringRun, facts_in
from genossm.variants.vcf_input import Record, VcfInput, open_vcf

if TYPE_CHECKING:
    from genossm.models import SequenceModel
    from genossm.variants.extras import Extras
    from genossm.variants.scorer import Scorer

FEWEST = 100
"""Alleles of a kind below which its quantiles would say little: such a kind is left out."""
# What two headers may differ in though the scores are the same.
_FREE_FACTS = ("command", "version", "method")


@dataclass(frozen=True)
class Background:
    """Which alleles of a VCF or BCF file are the background.

    info_key: the INFO field that chooses them, one number an ALT allele, from `least` to `most`; None takes all.
    scored: the file was scored under the same settings already, and its scores are taken.
    """

    source: str
    info_key: str | None = None
    least: float = 0.0
    most: float = 1.0
    scored: bool = False

    def __post_init__(self) -> None:
        if not self.least <= self.most:
            raise UsageError(f"--min {self.least:g} is above --max {self.most:g}; no allele lies between.")

    def described(self) -> dict[str, Any]:
        """For the calibration file; `name` goes into headers."""
        chosen = f", {self.info_key} {self.least:g} to {self.most:g}" if self.info_key else ""
        return {"name": f"{Path(self.source).name}{chosen}", "sha256": file_sha256(self.source)}

    def takes(self, number: float | None) -> bool:
        return self.info_key is None or (number is not None and self.least <= number <= self.most)


@dataclass
class CalibrationSummary:
    """alleles: of the background.   kinds: alleles sketched of each kind.   left_out: of kinds with too few.
    unscored: by reason.   without_key: alleles of the file that lack the INFO field.
    """

    path: Path
    alleles: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unscored: Counter[str] = field(default_factory=Counter)
    without_key: int = 0

    def line(self) -> str:
        """One line for people."""
        kept = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
        rest = [f"{count:,} {word}" for word, count in self.unscored.items()]
        rest += [f"{count:,} {kind}: fewer than {FEWEST}" for kind, count in self.left_out.items()]
        rest += [f"{self.without_key:,} without the INFO field"] if self.without_key else []
        left_out = f" (not in it: {'; '.join(rest)})" if rest else ""
        return f"{self.path}: {kept}{left_out}"


def run_calibrate(
    request: Request,
    background: Background,
    target: Path | None,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> CalibrationSummary:
    """Sketch the scores of a background and keep them; quantiles of later scores refer to them.

    target: a calibration file, new or to be added to; None is that of the model's directory.
    progress: called with the number of the background's alleles done.
    Raises: UsageError for a model without a local directory, where `target` is None; InputFileError for a file that
    cannot be read, was scored under other settings, or holds too few alleles of the background; OutputExistsError for
    settings that are calibrated already, without `force`; WrongAssemblyError.
    """
    from genossm.variants.extras import calibrated_settings

    path = target or calibration_path(request.model)
    before = load_calibration(path) if path.exists() else Calibration([], name=str(path))
    summary = CalibrationSummary(path)
    with genossm.genome.open(request.reference) as genome:
        model, options = request.open_model()
        extras = replace(request.extras(model, genome, options), calibration=None)
        scorer = _scorer(model, genome, options, request.batch_size, extras)
        digests = model.digest(), genome.reference_digest
        with open_vcf(background.source) as vcf:
            if background.scored:
                _require_equal(vcf, ScoringRun(*digests, options, "", scorer.methods, scorer.tags))
                found = _read(vcf, scorer, background, summary)
            else:
                found = _score(vcf, scorer, background, summary)
            scores = _collected(found, summary, progress)
        settings = calibrated_settings(*digests, scorer.options, extras.heads)
        entries = _entries(scores, scorer, settings, background, summary)
        provenance = Provenance(model_digest=digests[0], reference_digest=digests[1])
        before.joined(entries, force=force).save(path, provenance=provenance, force=path.exists())
    return summary


def calibration_path(model: str) -> Path:
    """Where a model's own calibration is kept. Raises: UsageError for a model that is no local directory."""
    if not Path(model).is_dir():
        raise UsageError(
            f"{model} is no directory of yours to keep a calibration in. Name a file: -o FILE.safetensors, and pass it "
            "to the commands that score: --calibration FILE.safetensors."
        )
    return Path(model) / FILE_NAME


Scores = dict[str, list["array[float]"]]
"""Kind to the scores of every field."""
_Numbered = tuple[str, str, Sequence[float | None]]
"""(REF, ALT, a number of every field) of an allele of the background."""


def _scorer(
    model: SequenceModel, genome: Genome, options: ScoringOptions, batch_size: int | None, extras: Extras
) -> Scorer:
    from genossm.variants.scorer import Scorer

    return Scorer(model, genome, options, batch_size=batch_size, extras=extras)


def _chosen(vcf: VcfInput, background: Background, summary: CalibrationSummary) -> Iterator[tuple[Record, int]]:
    """Records and the numbers of their ALT alleles that are in the background."""
    key = background.info_key
    for record in vcf.records:
        fields = info_fields(record) if key else {}
        for number in range(len(record.alts)):
            value = allele_number(record, fields, key, number) if key else None
            summary.without_key += bool(key) and value is None
            if background.takes(value):
                summary.alleles += 1
                yield record, number


def _score(vcf: VcfInput, scorer: Scorer, background: Background, summary: CalibrationSummary) -> Iterator[_Numbered]:
    check = AssemblyCheck(vcf.name, scorer.genome)
    chosen = _chosen(vcf, background, summary)
    while block := list(islice(chosen, BLOCK)):
        told = scorer.covariate_names
        alleles = [
            Allele(record.contig, record.pos1, record.ref, record.alts[number], allele_covariates(record, told)[number])
            for record, number in block
        ]
        located = [scorer.locate(one) for one in alleles]
        check.add(alleles[0].contig, located)
        check.settle(final=len(block) < BLOCK)
        for one in scorer.score(located):
            if one.status is Status.OK:
                yield one.variant.ref, one.variant.alt or "", one.numbers
            else:
                summary.unscored[one.status.value] += 1


def _require_equal(vcf: VcfInput, run: ScoringRun) -> None:
    """Raise InputFileError unless the file's header says what a run with these settings would write."""
    wanted, found = facts_in(run.header_lines()), facts_in(vcf.header)
    if not found:
        raise InputFileError(f"{vcf.name} was not scored by genossm. Leave --scored out, and it will be.")
    for key, value in wanted.items():
        if key not in _FREE_FACTS and value != found.get(key):
            raise InputFileError(
                f"{vcf.name} was scored under other settings: {key} is {found.get(key)}, here {value}. Pass the model, "
                "reference and options that it was scored with."
            )


def _read(vcf: VcfInput, scorer: Scorer, background: Background, summary: CalibrationSummary) -> Iterator[_Numbered]:
    for record, number in _chosen(vcf, background, summary):
        fields = info_fields(record)
        status = allele_text(record, fields, STATUS, number)
        numbers = [allele_number(record, fields, tag.name, number) for tag in scorer.tags]
        if status != Status.OK or None in numbers:
            summary.unscored[status if status and status != Status.OK else "without a score"] += 1
        else:
            yield record.ref, record.alts[number], numbers


def _collected(
    found: Iterator[_Numbered], summary: CalibrationSummary, progress: Callable[[int], None] | None
) -> Scores:
    """Eight bytes a number and allele are held, so that the quantiles can be exact."""
    scores: Scores = {}
    for ref, alt, numbers in found:
        kind = allele_kind(ref, alt)
        if kind is None:
            summary.unscored["REF equal to ALT"] += 1
            continue
        columns = scores.setdefault(kind, [array("d") for _ in numbers])
        for column, number in zip(columns, numbers, strict=True):
            column.append(rounded(number or 0.0))
        if progress:
            progress(summary.alleles)
    return scores


def _entries(
    scores: Scores, scorer: Scorer, settings: dict[str, Settings], background: Background, summary: CalibrationSummary
) -> list[Entry]:
    described = background.described()
    fields = [(method.name, tag) for method in scorer.methods for tag in method.tags]
    entries: list[Entry] = []
    for kind in (kind for kind in KINDS if kind in scores):
        count = len(scores[kind][0])
        (summary.kinds if count >= FEWEST else summary.left_out)[kind] = count
        if count < FEWEST:
            continue
        for (method, tag), column in zip(fields, scores[kind], strict=True):
            entries.append(Entry(tag.name, kind, settings[method], Sketch.of(column), described))
    if not summary.alleles and background.info_key:
        raise InputFileError(
            f"No allele of {background.source} has {background.info_key} from {background.least:g} to "
            f"{background.most:g}; {summary.without_key:,} have no {background.info_key} at all. Check --info-key."
        )
    if not entries:
        raise InputFileError(
            f"{background.source} has {summary.alleles:,} alleles of the background, and of no kind {FEWEST} with a "
            "score: too few for quantiles. Widen --min and --max, or take a larger file."
        )
    return entries

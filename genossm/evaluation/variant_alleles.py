"""Scored alleles of a region with their frequencies, as a VCF that `genossm score` wrote holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genossm.core.errors import InputFileError
from genossm.genome import Genome
from genossm.sequence import Interval, Variant
from genossm.variants import ScoringOptions, Status
from genossm.variants.methods import LLR, MLM
from genossm.variants.vcf_header import RATIO, STATUS, facts_in, methods_in
from genossm.variants.vcf_input import Record, VcfInput, open_vcf


@dataclass(frozen=True, slots=True)
class FrequencyAllele:
    """variant: on the genome's own contig name.   frequency: of ALT, as INFO/AF says.   llr: GENOSSM_LLR, nats."""

    variant: Variant
    frequency: float
    llr: float


@dataclass(frozen=True)
class ScoredRegion:
    """options, model_digest: as the header says that the scores were made; of the methods the one that gave `llr`.
    unscored: ALT alleles of the region without a score, by reason.   without_frequency: scored ones without AF.
    """

    alleles: tuple[FrequencyAllele, ...]
    options: ScoringOptions
    model_digest: str
    unscored: dict[str, int]
    without_frequency: int

    @property
    def method(self) -> str:
        """ "llr" or "mlm"."""
        return self.options.methods[0]


def read_scored(path: Path, genome: Genome, region: Interval) -> ScoredRegion:
    """The alleles of records that start within `region`, in the file's order.

    Raises: InputFileError if the file is no VCF or BCF, was not scored, or was scored on another reference.
    """
    with open_vcf(path) as vcf:
        facts = _facts(vcf, genome)
        alleles: list[FrequencyAllele] = []
        unscored: Counter[str] = Counter()
        without = 0
        for record in vcf.records:
            if not (region.start < record.pos1 <= region.end and _is_on(genome, record.contig, region.contig)):
                continue
            for variant, status, llr, frequency in _entries(record, region.contig, vcf.name):
                if status != Status.OK or llr is None or variant is None:
                    unscored[status] += 1
                elif frequency is None:
                    without += 1
                else:
                    alleles.append(FrequencyAllele(variant, frequency, llr))
    model = facts["model"].removeprefix("sha256:")
    return ScoredRegion(tuple(alleles), _options(facts), model, dict(unscored), without)


def _facts(vcf: VcfInput, genome: Genome) -> dict[str, str]:
    facts = facts_in(vcf.header)
    absent = [name for name in ("model", "reference", "method", "context", "strands") if name not in facts]
    if absent:
        raise InputFileError(
            f"{vcf.name} holds no scores of genossm (no ##genossm_{absent[0]} line in its header). "
            "Score it first: genossm score -f REF -m MODEL IN.vcf.gz -o SCORED.vcf.gz"
        )
    if _ratio_method(facts) is None:
        raise InputFileError(
            f"{vcf.name} holds no {RATIO}: it was scored by {facts['method']}. Score it with the method {LLR.name} or "
            f"{MLM.name}, whichever the model gives."
        )
    if facts["reference"] != f"sha256:{genome.reference_digest}":
        raise InputFileError(
            f"{vcf.name} was scored on another reference than {genome.name} (digest {facts['reference'][7:19]} against "
            f"{genome.reference_digest[:12]}). Pass the reference that it was scored on."
        )
    return facts


def _options(facts: dict[str, str]) -> ScoringOptions:
    horizon = int(facts["horizon"]) if facts.get("horizon", "full") != "full" else None
    context = None if facts["context"] == "whole" else int(facts["context"])
    method = _ratio_method(facts)
    return ScoringOptions(context, horizon, facts["strands"] == "+,-", (method,) if method else ())


def _ratio_method(facts: dict[str, str]) -> str | None:
    """The method whose log-likelihood ratio the file holds."""
    return next((name for name in methods_in(facts) if name in (LLR.name, MLM.name)), None)


def _is_on(genome: Genome, contig: str, wanted: str) -> bool:
    return contig == wanted or (contig in genome and genome.resolve(contig) == wanted)


def _entries(
    record: Record, contig: str, name: str
) -> Iterator[tuple[Variant | None, str, float | None, float | None]]:
    """(variant if it can be one, status, score, frequency) of every ALT allele."""
    info: dict[str, str] = {}
    for entry in record.info.decode("latin-1").split(";"):
        key, _, value = entry.partition("=")
        info[key] = value
    if STATUS not in info:
        raise InputFileError(f"{name}, {record.place} has no {STATUS}. Score the whole file anew.")
    statuses = info[STATUS].split(",")
    alts = record.alts or (".",)
    scores = info.get(RATIO, ",".join("." * len(alts))).split(",")
    frequencies = info.get("AF", ",".join("." * len(alts))).split(",")
    if not len(alts) == len(statuses) == len(scores) == len(frequencies):
        raise InputFileError(
            f"{name}, {record.place}: {len(alts)} ALT alleles, {len(statuses)} {STATUS}, {len(scores)} {RATIO}, "
            f"{len(frequencies)} AF; wanted one of each an allele."
        )
    for alt, status, score, frequency in zip(alts, statuses, scores, frequencies):
        scored = status == Status.OK and record.ref.upper() != alt.upper()
        variant = Variant(contig, record.pos1, record.ref, alt) if scored else None
        yield variant, status, _number(score), _number(frequency)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

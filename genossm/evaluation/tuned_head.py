"""What `genossm head tune` does: a copy of a model learns from pairs of windows, and is judged on other stretches.

It stands here because it trains and scores: neither of the two may know the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import genossm.genome
from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import InputFileError, UsageError
from genossm.core.provenance import Provenance, file_sha256
from genossm.data.variant_pairs import VariantPairs
from genossm.data.variant_rows import VariantRows
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.training.pairs import TuningConfig, tune
from genossm.variants.extras import Extras, head_settings
from genossm.variants.heads.crossvalidation import drawn_interval, metric_name, metric_of
from genossm.variants.heads.estimators import Kind, Linear
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.heads.head import FOLDER, VariantHead, check_name, refuse_methods
from genossm.variants.heads.labelled import LabelColumn, Labelled, read_labelled
from genossm.variants.opening import Request
from genossm.variants.options import ScoringOptions
from genossm.variants.scorer import Scorer
from genossm.variants.status import Status

_PARTS = ("difference", "reference")


@dataclass(frozen=True)
class TuningPlan:
    """stretch: bases that are never divided between training and test.   held_out: share of the stretches, judged."""

    name: str
    kind: Kind
    label: LabelColumn
    stretch: int = 100_000
    held_out: float = 0.2
    config: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind not in ("logistic", "ridge"):
            raise UsageError(f"A fine-tuned head is logistic or ridge; {self.kind} is fitted on frozen features alone.")
        if not 0 < self.held_out < 1 or self.stretch < 1:
            raise UsageError("The share that is held out lies between 0 and 1, stretches have at least 1 base.")


@dataclass(frozen=True)
class TunedHead:
    """figures: as the head's file holds them."""

    head: VariantHead
    figures: dict[str, Any]
    path: Path

    def lines(self) -> list[str]:
        """For people."""
        low, high = self.figures["interval"]
        return [
            f"{self.figures['trained']:,} alleles learnt from, {self.figures['alleles']:,} held out in "
            f"{self.figures['stretches']:,} stretches",
            f"{self.figures['metric']} {self.figures['value']:.3f} ({low:.3f} to {high:.3f}) on what was held out; the "
            f"model's ratio before {self.figures['alone']:.3f}",
            f"{self.path}: a model of its own; use it with -m {self.path} --method {self.head.name}",
        ]


def run_tune_head(request: Request, source: Path, plan: TuningPlan, target: Path, *, force: bool = False) -> TunedHead:
    """Fine-tune a copy of the model and keep it, its head inside, as the model directory `target`.

    Windows are as long as the context of the request's options, with the allele in the middle.
    Raises: UsageError; InputFileError for labels that cannot be read, or too few stretches; OutputExistsError;
    NumericsError.
    """
    refuse_methods(request.options.methods)
    refuse_overwrite(target, force=force)
    rows = read_labelled(source, plan.label, classes=plan.kind == "logistic")
    with genossm.genome.open(request.reference) as genome:
        model, options = request.open_model()
        device = model.device
        if options.context is None:
            raise UsageError("Fine-tuning reads windows of one length: give --context a number.")
        train, test, stretches = _divide(rows, genome, plan)
        before = _ratios(model, genome, options, request.batch_size, test)
        labels = np.array([row.label for row in train])
        scale = (float(labels.mean()), float(labels.std()) or 1.0) if plan.kind == "ridge" else (0.0, 1.0)
        pairs = _pairs(genome, model, train, (labels - scale[0]) / scale[1], options.context, plan)
        learnt = tune(model, pairs, plan.config, accelerator="cpu" if model.device.type == "cpu" else "auto")
        weights = np.concatenate([part.detach().numpy() for part in (learnt.difference, learnt.reference)])
        linear = _linear(plan.kind, weights.astype(np.float64), float(learnt.bias.detach()), scale)
        model.to(device)
        spec = FeatureSpec(_PARTS, plan.config.flank)
        label = f"{plan.label.described()} of {source.name}, fine-tuned"
        head = VariantHead(plan.name, linear, spec, (), head_settings(model, options), label, {})
        found = _judged(head, model, genome, options, request.batch_size, test)
        figures = _figures(plan, found, before, test, stretches, len(pairs))
        figures |= {"source": source.name, "source_sha256": file_sha256(source)}
        head = VariantHead(plan.name, linear, spec, (), head.settings, label, figures)
        provenance = Provenance(seed=plan.config.seed, reference_digest=genome.reference_digest)
        model.save_pretrained(target, provenance=provenance, force=force)
    (target / FOLDER).mkdir()
    head.save(target / FOLDER / plan.name, provenance=provenance)
    return TunedHead(head, figures, target)


def _divide(
    rows: Sequence[Labelled], genome: Genome, plan: TuningPlan
) -> tuple[list[Labelled], list[Labelled], NDArray[np.int64]]:
    """(training, test, stretch of each tested row)."""
    known = [row for row in rows if row.allele.contig in genome]
    names = [f"{genome.resolve(row.allele.contig)}:{row.allele.pos1 // plan.stretch}" for row in known]
    present, groups = np.unique(names, return_inverse=True)
    held = max(1, round(plan.held_out * len(present)))
    if len(present) < 2 or held >= len(present):
        raise InputFileError(
            f"The alleles lie in {len(present)} stretches, too few to hold some out. Take shorter ones: --block."
        )
    tested = np.isin(groups, np.random.default_rng(plan.config.seed).permutation(len(present))[:held])
    train = [row for row, out in zip(known, tested) if not out]
    return train, [row for row, out in zip(known, tested) if out], groups[tested]


def _pairs(
    genome: Genome,
    model: SequenceModel,
    rows: Sequence[Labelled],
    labels: NDArray[np.float64],
    length: int,
    plan: TuningPlan,
) -> VariantPairs:
    alleles = [row.allele for row in rows]
    table = VariantRows(
        tuple(one.contig for one in alleles),
        tuple(one.pos1 for one in alleles),
        tuple(one.ref for one in alleles),
        tuple(one.alt for one in alleles),
        tuple(row.place for row in rows),
        labels[:, None].astype(np.float32),
        np.zeros((len(rows), 0), dtype=np.float32),
        (plan.label.name,),
    )
    return VariantPairs(genome, table, model.tokenizer, length, edges="shift", shuffle=True, seed=plan.config.seed)


def _linear(kind: Kind, weights: NDArray[np.float64], bias: float, scale: tuple[float, float]) -> Linear:
    """The head as scoring holds it, in the label's own unit.   scale: (mean, deviation) of the labels it learnt."""
    center, deviation = scale
    nothing, one = np.zeros(len(weights)), np.ones(len(weights))
    return Linear(kind, nothing, one, weights * deviation, bias * deviation + center, 0.0)


def _ratios(
    model: SequenceModel, genome: Genome, options: ScoringOptions, batch_size: int | None, rows: Sequence[Labelled]
) -> NDArray[np.float64]:
    """The model's own ratio of each row, NaN without a score."""
    scorer = Scorer(model, genome, options, batch_size=batch_size)
    scored = scorer.stream(row.allele for row in rows)
    return np.array([np.nan if one.llr is None else one.llr for one in scored])


def _judged(
    head: VariantHead,
    model: SequenceModel,
    genome: Genome,
    options: ScoringOptions,
    batch_size: int | None,
    rows: Sequence[Labelled],
) -> NDArray[np.float64]:
    """What the head says of each row, through the code that scores files; NaN without a score."""
    named = replace(options, heads=(head.name,))
    scorer = Scorer(model, genome, named, batch_size=batch_size, extras=Extras(heads=(head,)))
    scored = list(scorer.stream(row.allele for row in rows))
    last = [one.numbers[-1] if one.status is Status.OK else None for one in scored]
    return np.array([np.nan if number is None else number for number in last])


def _figures(
    plan: TuningPlan,
    found: NDArray[np.float64],
    before: NDArray[np.float64],
    test: Sequence[Labelled],
    stretches: NDArray[np.int64],
    trained: int,
) -> dict[str, Any]:
    known = np.isfinite(found) & np.isfinite(before)
    if not known.any():
        raise InputFileError(
            "None of the alleles that were held out has a score. Bring more, or take shorter stretches."
        )
    labels, groups = np.array([row.label for row in test])[known], stretches[known]
    metric = metric_of(plan.kind)
    return {
        "metric": metric_name(plan.kind),
        "value": metric(found[known], labels),
        "interval": list(drawn_interval(metric, found[known], labels, groups, replicates=1000, seed=plan.config.seed)),
        "alone": metric(before[known], labels),
        "alleles": int(known.sum()),
        "trained": trained,
        "stretches": len(np.unique(groups)),
        "kind": "fine-tuned; stretches that training never saw, 95 % interval by drawing stretches",
        "stretch": plan.stretch,
        "tuning": asdict(plan.config),
    }

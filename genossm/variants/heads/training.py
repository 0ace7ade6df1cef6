"""What `genossm head train` does: features of labelled alleles, nested cross-validation, a head in its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import genossm.genome
from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import InputFileError, UsageError
from genossm.core.provenance import Provenance, file_sha256
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.extras import head_settings
from genossm.variants.heads.covariates import covariate_matrix, learn_covariates
from genossm.variants.heads.crossvalidation import CrossValidation, Examples, nested_cross_validation
from genossm.variants.heads.estimators import TASKS, Kind
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.heads.head import FOLDER, VariantHead, check_name, refuse_methods
from genossm.variants.heads.labelled import LabelColumn, Labelled, read_labelled
from genossm.variants.opening import Request
from genossm.variants.options import ScoringOptions
from genossm.variants.scorer import Scorer
from genossm.variants.status import Status

DEFAULT_STRETCH = 100_000
_BLOCK = 1024


@dataclass(frozen=True)
class HeadPlan:
    """What is trained.   stretch: bases that are never divided between training and test, where no column says groups.
    group: a column whose words say it instead.   outer, inner: folds.
    """

    name: str
    kind: Kind
    label: LabelColumn
    covariates: tuple[str, ...] = ()
    spec: FeatureSpec = field(default_factory=FeatureSpec)
    group: str | None = None
    stretch: int = DEFAULT_STRETCH
    outer: int = 5
    inner: int = 4
    seed: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        if min(self.outer, self.inner) < 2 or self.stretch < 1:
            raise UsageError("Cross-validation needs at least 2 folds, and stretches of at least 1 base.")


@dataclass(frozen=True)
class TrainedHead:
    """left_out: alleles with a label but no score, by reason."""

    head: VariantHead
    found: CrossValidation
    left_out: Mapping[str, int]
    path: Path

    def lines(self) -> list[str]:
        """For people."""
        low, high = self.found.interval
        rest = ", ".join(f"{count:,} {word}" for word, count in self.left_out.items())
        return [
            f"{self.found.alleles:,} alleles in {self.found.stretches:,} stretches"
            + (f"; left out: {rest}" if rest else ""),
            f"{self.found.metric} {self.found.value:.3f} ({low:.3f} to {high:.3f}) in nested cross-validation; the "
            f"model's ratio alone {self.found.alone:.3f}",
            f"{self.path}: use it with --method {self.head.name}",
        ]


def run_train_head(
    request: Request,
    source: Path,
    plan: HeadPlan,
    target: Path | None,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedHead:
    """Train a head on labelled alleles and keep it.

    target: the head's folder; None is `heads/NAME` in the model's directory.   progress: (alleles done, of all).
    Raises: UsageError for a name or options that cannot be, or a model without a directory of its own where `target` is
    None; InputFileError for labels or covariates that are missing, or too few stretches; OutputExistsError.
    """
    refuse_methods(request.options.methods)
    folder = target or _own_folder(request.model, plan.name)
    refuse_overwrite(folder, force=force)
    classes = TASKS[plan.kind] == "classification"
    rows = read_labelled(
        source, plan.label, classes=classes, covariates=plan.covariates, group=plan.group, columns=plan.columns
    )
    with genossm.genome.open(request.reference) as genome:
        model, options = request.open_model()
        kept, ratios, means, left_out = _features(request, model, genome, options, rows, plan.spec.flank, progress)
        told = [one.allele.covariates or {} for one in kept]
        wheres = [one.place for one in kept]
        covariates = learn_covariates(plan.covariates, told, wheres)
        features = np.concatenate(
            [plan.spec.matrix(ratios, *means), covariate_matrix(covariates, told, wheres)], axis=1
        )
        examples = _examples(kept, features, ratios, plan, genome)
        found, linear = nested_cross_validation(plan.kind, examples, outer=plan.outer, inner=plan.inner, seed=plan.seed)
        label = f"{plan.label.described()} of {source.name}"
        settings = head_settings(model, options)
        figures = _figures(found, left_out, source, plan)
        head = VariantHead(plan.name, linear, plan.spec, covariates, settings, label, figures)
        provenance = Provenance(seed=plan.seed, model_digest=model.digest(), reference_digest=genome.reference_digest)
    folder.parent.mkdir(exist_ok=True)
    head.save(folder, provenance=provenance, force=force)
    return TrainedHead(head, found, left_out, folder)


def _own_folder(model: str, name: str) -> Path:
    if not Path(model).is_dir():
        raise UsageError(
            f"{model} is no directory of yours to keep a head in. Name a folder, -o HEADS/{name}, and pass HEADS to "
            "the commands that score: --heads HEADS."
        )
    return Path(model) / FOLDER / name


_Means = tuple[NDArray[np.float64], NDArray[np.float64]]


def _features(
    request: Request,
    model: SequenceModel,
    genome: Genome,
    options: ScoringOptions,
    rows: Sequence[Labelled],
    flank: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Labelled], NDArray[np.float64], _Means, Counter[str]]:
    """The alleles that can be scored, the model's ratio of each, and means of hidden states with REF and with ALT."""
    scorer = Scorer(model, genome, options, batch_size=request.batch_size)
    pair_means = scorer.pair_means()
    kept: list[Labelled] = []
    ratios: list[float] = []
    sides: list[_Means] = []
    left_out = Counter[str]()
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        located = [scorer.locate(one.allele) for one in block]
        placements: list[Placement] = []
        for row, place, scored in zip(block, located, scorer.score(located)):
            if place.placement is None or scored.llr is None:
                left_out["REF equal to ALT" if scored.status is Status.OK else scored.status.value] += 1
                continue
            kept.append(row)
            ratios.append(scored.llr)
            placements.append(place.placement)
        sides.append(pair_means.values(placements, flank))
        if progress:
            progress(min(start + _BLOCK, len(rows)), len(rows))
    if len(kept) < 2:
        raise InputFileError(
            f"{len(kept)} labelled alleles can be scored; a head needs many. Left out: {dict(left_out)}. Check the "
            "label's column and the assembly."
        )
    reference, alternative = (np.concatenate(columns) for columns in zip(*sides))
    return kept, np.array(ratios), (reference, alternative), left_out


def _examples(
    kept: Sequence[Labelled],
    features: NDArray[np.float64],
    ratios: NDArray[np.float64],
    plan: HeadPlan,
    genome: Genome,
) -> Examples:
    contigs = [genome.resolve(one.allele.contig) for one in kept]
    positions = np.array([one.allele.pos1 for one in kept])
    stretches = [
        one.group if plan.group else f"{contig}:{position // plan.stretch}"
        for one, contig, position in zip(kept, contigs, positions)
    ]
    _, groups = np.unique(np.array(stretches, dtype=object).astype(str), return_inverse=True)
    _, numbers = np.unique(contigs, return_inverse=True)
    labels = np.array([one.label for one in kept])
    # Hidden states around alleles that are nearer than this share bases.
    return Examples(features, ratios, labels, groups, numbers, positions, 2 * plan.spec.flank)


def _figures(found: CrossValidation, left_out: Mapping[str, int], source: Path, plan: HeadPlan) -> dict[str, Any]:
    figures = asdict(found)
    figures["folds"] = [{"metric": value, "strength": strength} for value, strength in found.folds]
    figures["kind"] = "nested cross-validation over stretches; 95 % interval by drawing stretches"
    figures["stretch"] = plan.group or plan.stretch
    return {**figures, "left_out": dict(left_out), "source": source.name, "source_sha256": file_sha256(source)}

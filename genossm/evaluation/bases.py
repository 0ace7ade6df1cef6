"""Bits per base of a model beside Markov models, on exactly the same bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import ConfigError
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits
from genossm.evaluation.bases_methods import Hiding, Methods, causal_methods, masked_methods
from genossm.evaluation.bases_report import BLOCK, BasesReport, Difference, MethodBits, write_report
from genossm.evaluation.bootstrap import block_bootstrap, percentile_interval
from genossm.evaluation.leaks import refuse_learnt_regions

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

# What each objective is set against unless the caller says otherwise.
DEFAULT_ORDERS = {"causal": (0, 3, 8, 11), "masked": (0, 4, 8, 12)}


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of the judged regions: where they start, bits of each method (blocks, methods), bases scored."""

    places: tuple[tuple[str, int], ...]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


def evaluate_bases(
    model: SequenceModel,
    genome: Genome,
    splits: Splits,
    *,
    orders: Sequence[int] | None = None,
    context: int | None,
    mask_fraction: float | None = None,
    block: int = BLOCK,
    replicates: int = 2000,
    seed: int = 0,
) -> BasesReport:
    """Measure `model` on the test regions beside Markov models counted on train and tuned on validation.

    The model's objective decides what is measured. Causal: bits per base, each predicted from those before it, beside
    one-sided Markov models. Masked: bits per hidden base, predicted from those around it, beside two-sided ones.
    orders: of the Markov models; None is DEFAULT_ORDERS.   context: bases a window, None for one pass; see
    `base_log_probabilities` and `hidden_log_probabilities`.
    mask_fraction: share of the bases that are hidden, of masked models alone; None is 0.15.
    block: bases; the unit of the bootstrap and of the values along the sequence.
    seed: of the bootstrap, and of which bases are hidden.
    Raises: ConfigError if a region is missing, an order is impossible, or a causal model is given a mask.
    """
    if not splits.test:
        raise ConfigError("No test region was given, so there is nothing to judge on.")
    orders = DEFAULT_ORDERS[model.objective] if orders is None else orders
    hiding = _hiding(model, mask_fraction, seed)
    if hiding is None:
        methods = causal_methods(model, genome, splits, orders=orders, context=context)
    else:
        methods = masked_methods(model, genome, splits, orders=orders, context=context, hiding=hiding)
    return _report(splits, context, hiding, methods, _score_blocks(methods, splits, block), block, replicates, seed)


def run_evaluate_bases(
    model_path: str,
    genome_path: str,
    *,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    orders: Sequence[int] | None = None,
    context: int | None,
    output: Path,
    mask_fraction: float | None = None,
    block: int = BLOCK,
    seed: int = 0,
    device: str | None = None,
    force: bool = False,
) -> BasesReport:
    """Open, measure, write: what `genossm evaluate bases` does.

    Raises: as `evaluate_bases`; ConfigError besides if the model itself was trained or tuned on a test region.
    """
    import genossm.genome
    from genossm.models.loading import MODEL_FILES, find_directory, load

    refuse_overwrite(output, force=force)
    with genossm.genome.open(genome_path) as genome:
        splits = Splits.parse(genome, train, validation, test)
        refuse_learnt_regions(find_directory(model_path, files=MODEL_FILES), genome, splits.test)
        model = load(model_path, device=device)
        report = evaluate_bases(
            model,
            genome,
            splits,
            orders=orders,
            context=context,
            mask_fraction=mask_fraction,
            block=block,
            seed=seed,
        )
        provenance = Provenance(seed=seed, model_digest=model.digest(), reference_digest=genome.reference_digest)
        write_report(report, output, provenance=provenance, force=force)
    return report


def _hiding(model: SequenceModel, fraction: float | None, seed: int) -> Hiding | None:
    if model.objective == "masked":
        return Hiding(seed=seed) if fraction is None else Hiding(fraction, seed)
    if fraction is not None:
        raise ConfigError(
            f"A share of hidden bases ({fraction}) is given, but the model is causal: it predicts every base from "
            "those before it. Leave it out."
        )
    return None


def _score_blocks(methods: Methods, splits: Splits, block: int) -> _Blocks:
    places: list[tuple[str, int]] = []
    sums: list[NDArray[np.float64]] = []
    counts: list[int] = []
    for region in splits.test:
        nats, scored = methods.score(region)
        for start in range(0, len(region), block):
            places.append((region.contig, region.start + start))
            sums.append(-nats[:, start : start + block].sum(axis=1) / math.log(2.0))
            counts.append(int(scored[start : start + block].sum()))
    return _Blocks(tuple(places), np.stack(sums), np.array(counts))


def _report(
    splits: Splits,
    context: int | None,
    hiding: Hiding | None,
    methods: Methods,
    blocks: _Blocks,
    block: int,
    replicates: int,
    seed: int,
) -> BasesReport:
    sums, counts = blocks.sums, blocks.counts
    total = int(counts.sum())
    if not total:
        raise ConfigError("The test regions hold no A, C, G or T to score. Choose other regions.")
    resampled = block_bootstrap(sums, counts, replicates=replicates, seed=seed)
    bits = sums.sum(axis=0) / total
    judged = tuple(
        MethodBits(name, float(bits[i]), percentile_interval(resampled[:, i]), methods.details[i])
        for i, name in enumerate(methods.names)
    )
    differences = tuple(
        Difference(name, float(bits[0] - bits[i]), percentile_interval(resampled[:, 0] - resampled[:, i]))
        for i, name in enumerate(methods.names)
        if i
    )
    return BasesReport(
        splits,
        context,
        total,
        judged,
        differences,
        blocks.places,
        counts,
        np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan),
        mask_fraction=None if hiding is None else hiding.fraction,
        block=block,
    )

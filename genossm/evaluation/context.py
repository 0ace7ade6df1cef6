"""Bits per base by the number of bases that a method could see, on the same bases at every context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import ConfigError, UsageError
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits, parse_regions, refuse_overlaps
from genossm.evaluation.bases_methods import Hiding, Scores
from genossm.evaluation.context_file import ContextBits, write_context
from genossm.evaluation.context_method import ContextMethod
from genossm.evaluation.leaks import refuse_learnt_regions
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.evaluation.masked_likelihood import hidden_log_probabilities
from genossm.evaluation.places import Places, read_places
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

BLOCK = 10_000
ALL_PLACES = "all"


def model_method(model: SequenceModel, genome: Genome, name: str, *, hiding: Hiding | None = None) -> ContextMethod:
    """A model of either objective; `hiding` says which bases a masked one is asked for."""
    details: dict[str, Any] = {"kind": "model", "parameters": model.num_parameters(), "digest": model.digest()}
    if model.objective == "causal":
        score = partial(_score_causal, model, genome)
    else:
        hiding = hiding or Hiding()
        details |= {"mask_fraction": hiding.fraction, "mask_seed": hiding.seed}
        score = partial(_score_masked, model, genome, hiding)
    return ContextMethod(name, model.objective, details, score)


def _score_causal(model: SequenceModel, genome: Genome, region: Interval, context: int) -> Scores:
    return base_log_probabilities(model, genome, region, context=context)


def _score_masked(model: SequenceModel, genome: Genome, hiding: Hiding, region: Interval, context: int) -> Scores:
    values = hidden_log_probabilities(
        model, genome, region, fraction=hiding.fraction, seed=hiding.seed, context=context
    )
    return values, hiding.places(region) & known_bases(genome, region)


def known_bases(genome: Genome, region: Interval) -> NDArray[np.bool_]:
    """(length,) whether each letter is A, C, G or T."""
    return np.isin(genome.fetch_array(region), np.frombuffer(b"ACGT", np.uint8))


def measure_context(
    method: ContextMethod,
    genome: Genome,
    regions: Sequence[Interval],
    contexts: Sequence[int],
    *,
    places: Places | None = None,
    keep: Sequence[int] = (),
    block: int = BLOCK,
    progress: Callable[[str], None] | None = None,
) -> ContextBits:
    """Ask `method` for every base of `regions` once a context.

    contexts: bases a window. A base of a causal model sees context / 2 to context - 1 of them before it, one of a
        masked model at least context / 4 on either side.
    places: tells the classes of places apart; one class without.   keep: contexts whose single values are kept.
    Raises: ConfigError if regions share a base, nothing can be scored, or `keep` is not among the contexts.
    """
    _require_something_to_measure(regions, contexts, keep)
    names = places.names if places else (ALL_PLACES,)
    kinds = [places.of(genome, region) if places else np.zeros(len(region), np.uint8) for region in regions]
    nats: list[NDArray[np.float64]] = []
    counts: NDArray[np.int64] | None = None
    kept: dict[int, tuple[NDArray[np.float16], ...]] = {}
    for context in contexts:
        scores = [method.score(region, context) for region in regions]
        parts = [_tabulate(*score, kind, len(names), block) for score, kind in zip(scores, kinds)]
        nats.append(np.concatenate([sums for sums, _ in parts]))
        found = np.concatenate([number for _, number in parts])
        assert counts is None or np.array_equal(counts, found)  # a base is scored at every context or at none
        counts = found
        if context in keep:
            kept[context] = tuple((-values).astype(np.float16) for values, _ in scores)
        if progress is not None:
            progress(f"{method.name}, context {context:,}: {nats[-1].sum() / max(1, found.sum()) / np.log(2):.4f} bits")
    assert counts is not None
    if not counts.sum():
        raise ConfigError("The regions hold no base to score. Choose others.")
    starts = [(region.contig, start) for region in regions for start in range(region.start, region.end, block)]
    return ContextBits(
        method.name,
        method.objective,
        method.details,
        tuple(regions),
        tuple(contexts),
        block,
        tuple(starts),
        tuple(names),
        np.stack(nats),
        counts,
        kept,
    )


def _require_something_to_measure(regions: Sequence[Interval], contexts: Sequence[int], keep: Sequence[int]) -> None:
    refuse_overlaps({"test": regions})
    absent = sorted(set(keep) - set(contexts))
    if not regions or not contexts or absent:
        raise ConfigError(
            f"{len(regions)} regions, {len(contexts)} contexts, and {absent} to be kept but not measured; wanted at "
            "least one of each, and of what is kept that it is measured."
        )


def _tabulate(
    values: NDArray[np.float64], scored: NDArray[np.bool_], kind: NDArray[np.uint8], kinds: int, block: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums of -ln p, and numbers of scored bases, both (blocks, kinds)."""
    blocks = -(-len(values) // block)
    cell = np.arange(len(values)) // block * kinds + kind
    sums = np.bincount(cell[scored], weights=-values[scored], minlength=blocks * kinds)
    numbers = np.bincount(cell[scored], minlength=blocks * kinds)
    return sums.reshape(blocks, kinds).astype(np.float64), numbers.reshape(blocks, kinds).astype(np.int64)


def run_evaluate_context(
    genome_path: str,
    *,
    regions: Sequence[str],
    contexts: Sequence[int],
    output: Path,
    model_path: str | None = None,
    baseline: str | None = None,
    train: Sequence[str] = (),
    validation: Sequence[str] = (),
    name: str | None = None,
    places_path: Path | None = None,
    keep: Sequence[int] = (),
    mask_fraction: float | None = None,
    block: int = BLOCK,
    seed: int = 0,
    device: str | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ContextBits:
    """Open, measure, write: what `genossm evaluate context` does, for a model or for a baseline.

    Raises: UsageError unless there is either a model or a baseline, and for a baseline what it is counted on;
    ConfigError if a judged base was learnt; as `measure_context`.
    """
    import genossm.genome

    refuse_overwrite(output, force=force)
    if (model_path is None) == (baseline is None):
        raise UsageError("Give either --model or --baseline.")
    with genossm.genome.open(genome_path) as genome:
        judged = parse_regions(genome, regions)
        places = read_places(places_path) if places_path else None
        hiding = Hiding(seed=seed) if mask_fraction is None else Hiding(mask_fraction, seed)
        if model_path is not None:
            method = _loaded(model_path, genome, judged, hiding, name=name, device=device)
        else:
            from genossm.evaluation.context_baselines import baseline_method

            assert baseline is not None
            splits = Splits(parse_regions(genome, train), parse_regions(genome, validation), judged)
            method = baseline_method(baseline, genome, splits, contexts, hiding=hiding, name=name)
        found = measure_context(
            method, genome, judged, contexts, places=places, keep=keep, block=block, progress=progress
        )
        digest = method.details.get("digest")
        provenance = Provenance(seed=seed, model_digest=digest, reference_digest=genome.reference_digest)
    write_context(found, output, provenance=provenance, force=force)
    return found


def _loaded(
    path: str, genome: Genome, judged: Sequence[Interval], hiding: Hiding, *, name: str | None, device: str | None
) -> ContextMethod:
    """The model at `path`, once it is known that it learnt nothing of what is judged."""
    from genossm.models.loading import MODEL_FILES, find_directory, load

    refuse_learnt_regions(find_directory(path, files=MODEL_FILES), genome, judged)
    return model_method(load(path, device=device), genome, name or Path(path).name, hiding=hiding)

"""Scores of alleles by any of a model's methods, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import NumericsError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Placement, Variant
from genossm.variants.embedding_passes import EmbeddingPasses
from genossm.variants.extras import Extras, Quantiles, head_methods
from genossm.variants.given import read_variants, require_model_and_genome
from genossm.variants.heads.features import PairMeans
from genossm.variants.heads.passes import head_passes
from genossm.variants.locate import BLOCK, Allele, EmbeddingDistances, Located, Locator, ScoredAllele
from genossm.variants.masked_passes import MaskedPasses
from genossm.variants.measured import MeasuredError
from genossm.variants.methods import EMBEDDING, LLR, METHODS, MLM, Method, Tag
from genossm.variants.options import DEFAULT_CONTEXT, DEFAULT_HORIZON, DEFAULT_NEIGHBOURHOOD, ScoringOptions
from genossm.variants.passes import CausalPasses
from genossm.variants.reference import Letters
from genossm.variants.score_table import scored_frame
from genossm.variants.status import Status

if TYPE_CHECKING:
    from pandas import DataFrame


@overload
def score(
    model: SequenceModel,
    genome: Genome,
    variants: DataFrame,
    *,
    methods: str | Iterable[str] | None = None,
    context: int | None = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
    extras: Extras | None = None,
    neighbourhood: int = DEFAULT_NEIGHBOURHOOD,
    exact: bool = False,
) -> DataFrame: ...


@overload
def score(
    model: SequenceModel,
    genome: Genome,
    variants: Iterable[Variant | Allele | str] | Variant | Allele | str,
    *,
    methods: str | Iterable[str] | None = None,
    context: int | None = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
    extras: Extras | None = None,
    neighbourhood: int = DEFAULT_NEIGHBOURHOOD,
    exact: bool = False,
) -> Iterator[ScoredAllele]: ...


def score(
    model: SequenceModel,
    genome: Genome,
    variants: Iterable[Variant | Allele | str] | Variant | Allele | str | DataFrame,
    *,
    methods: str | Iterable[str] | None = None,
    context: int | None = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
    extras: Extras | None = None,
    neighbourhood: int = DEFAULT_NEIGHBOURHOOD,
    exact: bool = False,
) -> Iterator[ScoredAllele] | DataFrame:
    """Scores of every allele, in the order given; nothing is read or written but the genome.

    variants: one by one, as objects or texts ("20:1000226:A>T"), to an iterator that scores as it is read; or a pandas
    DataFrame with the columns contig, pos, ref and alt (or variant), to a DataFrame with the same rows and the columns
    of `genossm score-table` behind them.
    methods: names, None for that of the model's own objective.
    "llr" (causal models): Σ ln p(ALT) − Σ ln p(REF) over the same number of letters of either haplotype, from the first
    where they differ, each given all letters before it.
    "mlm" (masked models): substitutions: all REF positions masked in one pass, Σ ln p(ALT) − Σ ln p(REF) there; changes
    of length: the 8 bases on either side of all equivalent placements, masked one at a time, ALT's sum − REF's.
    "embedding" (both): distances between mean hidden states with ALT and with REF; see `EmbeddingDistances`.

    The window is one that the position alone decides. A score does not depend on the other variants, their order or the
    batch size, beyond rounding (1e-3 nats per 1,024 letters in float32). A ratio is 0 where no letter can be compared:
    a repeat that runs to the contig's end.

    context: bases of a window, a multiple of 4; None is the whole contig.   horizon: letters that "llr" compares, at
    most context / 4; None is all of these; other methods have none.   exact, neighbourhood: whether "mlm", "embedding"
    and heads read long windows whole for every allele, and else how many bases on either side of it (see
    `ScoringOptions`).   both_strands: the mean of both strands; a reverse-complement-equivariant model always gives it,
    in one run.   batch_size: rows in one pass, None to choose by their length.
    extras: heads that `methods` name, and a calibration; their numbers then stand among the `numbers`.
    Raises: UsageError for impossible options or arguments of another kind; VariantError for a text that is no variant;
    MethodError for a method that the model does not give.

    >>> [(str(one.variant), str(one.status)) for one in score(model, genome, [Variant.parse("20:1000226:A>T")])]
    [('20:1000226:A>T', 'OK')]
    """
    require_model_and_genome("score", model, genome)
    names = (methods,) if isinstance(methods, str) else tuple(methods or ())
    options = ScoringOptions(context, horizon, both_strands, names, neighbourhood, exact)
    scorer = Scorer(model, genome, options, batch_size=batch_size, extras=extras)
    if hasattr(variants, "columns"):
        return scored_frame(scorer, cast("DataFrame", variants))
    return scorer.stream(read_variants(variants))


class Passes(Protocol):
    """Runs a model over placements: (placements, strands, numbers of the method)."""

    def values(
        self, placements: Sequence[Placement], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]: ...


class Scorer:
    """Scores those alleles that can be; see `score`.   options: those given, with the methods named."""

    def __init__(
        self,
        model: SequenceModel,
        genome: Genome,
        options: ScoringOptions,
        *,
        batch_size: int | None = None,
        extras: Extras | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"A batch of {batch_size} alternatives is not possible; wanted at least 1.")
        equivariant = model.config.equivariant
        self.options = options.of_model(model.objective, equivariant=equivariant)
        self._locator = Locator(genome, self.options)
        # What both strands of an equivariant model say is the same: the plus strand is run and counts for both.
        self._strands_a_run = 2 if equivariant else 1
        run = replace(self.options, both_strands=False) if equivariant else self.options
        kinds = {LLR.name: CausalPasses, MLM.name: MaskedPasses, EMBEDDING.name: EmbeddingPasses}
        letters = self._letters()
        self._passes: dict[str, Passes] = {
            name: kinds[name](model, letters, run, batch_size=batch_size) for name in self.options.methods
        }
        self._extras = extras or Extras()
        self._pair_means = PairMeans(model, letters, run, batch_size=batch_size)
        self._heads = head_passes(model, run, self._extras, self._pair_means)
        plain = [(method.name, tag) for method in self.methods for tag in method.tags]
        self._quantiles = Quantiles(plain, extras, model, genome, self.options)

    def _letters(self) -> Letters:
        """What the passes read."""
        return self._locator.letters

    @property
    def genome(self) -> Genome:
        return self._locator.genome

    @property
    def methods(self) -> tuple[Method, ...]:
        """What is computed, in the order of the fields."""
        heads = head_methods(self._extras) if self._heads is not None else ()
        return (*(METHODS[name] for name in self.options.methods), *heads)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """What each of a scored allele's `numbers` is."""
        return self._quantiles.tags

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """What the heads want to be told of every allele."""
        return () if self._heads is None else self._extras.covariate_names

    @property
    def measured(self) -> dict[str, dict[str, Any]]:
        """By method, and of heads: what a horizon or neighbourhoods leave out, as measured on some alleles so far."""
        return {name: error.as_dict() for name, error in self._measured().items()}

    def measured_state(self) -> dict[str, dict[str, Any]]:
        """What has been measured since this was last asked, for a journal; `restore_measured` takes it."""
        return {name: error.state() for name, error in self._measured().items()}

    def restore_measured(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what an earlier run had measured."""
        for name, error in self._measured().items():
            error.restore(state[name])

    def _measured(self) -> dict[str, MeasuredError]:
        found = {name: getattr(passes, "measured", None) for name, passes in self._passes.items()}
        found["heads"] = getattr(self._heads, "measured", None)
        return {name: error for name, error in found.items() if error is not None}

    def locate(self, variant: Variant | Allele) -> Located:
        """What can be said of an allele without the model: its status, and where it stands."""
        return self._locator.locate(variant)

    def pair_means(self) -> PairMeans:
        """What gives heads their features, on the strands that this scorer runs."""
        return self._pair_means

    def stream(self, variants: Iterable[Variant | Allele]) -> Iterator[ScoredAllele]:
        """Score as is read, a block of alleles at a time."""
        return chain.from_iterable(self.score([self.locate(one) for one in block]) for block in _blocks(variants))

    def score(self, located: Sequence[Located], progress: Callable[[int], None] | None = None) -> list[ScoredAllele]:
        """Run the alleles that have something to run. progress: called with the number of rows just done."""
        placed = [one for one in located if one.placement is not None]
        placements = [one.placement for one in located if one.placement is not None]
        found, heads = self._run([one.variant for one in placed], placements, progress)
        scored: list[ScoredAllele] = []
        done = 0
        for one in located:
            if one.placement is None:
                scored.append(self._not_run(one))
            else:
                scored.append(self._scored(one, {name: values[done] for name, values in found.items()}, heads[done]))
                done += 1
        return scored

    def _run(
        self,
        variants: Sequence[Variant | Allele],
        placements: Sequence[Placement],
        progress: Callable[[int], None] | None,
        *,
        exchanged: bool = False,
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        """By method (alleles, strands, numbers), and (alleles, heads).

        exchanged: REF stands as ALT in the placements; the numbers are those of ALT against REF.
        """
        found = {
            name: np.repeat(passes.values(placements, progress), self._strands_a_run, axis=1)
            for name, passes in self._passes.items()
        }
        if exchanged:
            # Ratios change their sign, distances do not.
            found = {name: values if name == EMBEDDING.name else -values for name, values in found.items()}
        if self._heads is None or not placements:
            return found, np.zeros((len(placements), 0))
        [own] = [name for name in (LLR.name, MLM.name) if name in found]
        ratios = found[own][:, :, 0].mean(axis=1)
        return found, self._heads.values(variants, placements, ratios, exchanged=exchanged)

    def _not_run(self, one: Located) -> ScoredAllele:
        if one.status is not Status.OK:
            return ScoredAllele(one.variant, None, one.status)
        # REF equal to ALT changes nothing, so it is not run.
        strands = len(self.options.strands)
        nothing = {name: np.zeros((strands, len(METHODS[name].tags))) for name in self._passes}
        return self._scored(one, nothing, (None,) * len(self.options.heads))

    def _scored(
        self, one: Located, found: dict[str, NDArray[np.float64]], heads: Iterable[float | None]
    ) -> ScoredAllele:
        """found: method to (strands, numbers), in the order of the fields.   heads: a number each, behind them."""
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise NumericsError(
                    f"{one.variant.contig}:{one.variant.pos1}:{one.variant.ref}>{one.variant.alt} scores "
                    f"{tuple(map(float, values.ravel()))} by {name}, which is no number. Check the model's weights, or "
                    "load it in float32."
                )
        means = {name: tuple(map(float, values.mean(axis=0))) for name, values in found.items()}
        plain = [number for values in means.values() for number in values]
        plain += [None if number is None else float(number) for number in heads]
        numbers = self._quantiles.added(one.variant, plain)
        embedding = EmbeddingDistances(*means[EMBEDDING.name]) if EMBEDDING.name in means else None
        own = next((name for name in (LLR.name, MLM.name) if name in means), None)
        if own is None:
            return ScoredAllele(one.variant, None, one.status, (), embedding, numbers)
        strand_scores = tuple(map(float, found[own][:, 0]))
        return ScoredAllele(one.variant, means[own][0], one.status, strand_scores, embedding, numbers)


def _blocks(variants: Iterable[Variant | Allele]) -> Iterator[list[Variant | Allele]]:
    rest = iter(variants)
    while block := list(islice(rest, BLOCK)):
        yield block

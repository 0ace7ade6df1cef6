"""Heads on alleles: their features from shared passes, and what neighbourhoods leave out of their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import UsageError
from genossm.models import SequenceModel
from genossm.sequence import Placement, Variant
from genossm.variants.extras import CovariateTable, Extras, head_settings
from genossm.variants.heads.covariates import covariate_matrix
from genossm.variants.heads.features import PairMeans
from genossm.variants.heads.head import VariantHead
from genossm.variants.locate import Allele
from genossm.variants.measured import MeasuredError
from genossm.variants.methods import METHODS
from genossm.variants.options import ScoringOptions

Matrices = Sequence[NDArray[np.float64]]


class HeadPasses:
    """Runs heads over placements, sharing their features.

    measured: the error of neighbourhoods so far; None where there are none, or where they are exact: a causal model's
    hidden states around an allele depend on nothing behind it.
    """

    def __init__(
        self,
        model: SequenceModel,
        options: ScoringOptions,
        heads: tuple[VariantHead, ...],
        means: PairMeans,
        covariates: CovariateTable | None,
    ) -> None:
        self._heads, self._means, self._covariates = heads, means, covariates
        self._flanks = sorted({head.spec.flank for head in heads})
        self._strands = len(options.strands)
        self.measured: MeasuredError | None = None
        if model.config.direction != "causal" and options.splits(options.usual_window, self._flanks[0]):
            fields = tuple(tag.name for head in heads for tag in head.method.tags)
            self.measured = MeasuredError({"neighbourhood": options.neighbourhood, "against": "whole windows"}, fields)

    def values(
        self,
        variants: Sequence[Variant | Allele],
        placements: Sequence[Placement],
        ratios: NDArray[np.float64],
        *,
        exchanged: bool = False,
    ) -> NDArray[np.float64]:
        """(alleles, heads).   ratios: (alleles,) of the model's own method, ALT against REF.

        exchanged: REF stands as ALT in the placements.
        Raises: InputFileError for a covariate that is missing.
        """
        told = [self._told(one) for one in variants]
        wheres = [f"{one.contig}:{one.pos1}:{one.ref}>{one.alt}" for one in variants]
        # What is missing stops the run before the model is asked.
        matrices = [covariate_matrix(head.covariates, told, wheres) for head in self._heads]
        before = self._means.tokens
        found = self._predicted(placements, ratios, matrices, exchanged=exchanged)
        if self.measured is not None:
            spent = self._means.tokens - before
            for number in self._drawn(self.measured, placements, spent):
                rows = slice(number, number + 1)
                one = [matrix[rows] for matrix in matrices]
                full = self._predicted(placements[rows], ratios[rows], one, exchanged=exchanged, whole=True)
                self.measured.add(placements[number], found[number] - full[0])
        return found

    def _predicted(
        self,
        placements: Sequence[Placement],
        ratios: NDArray[np.float64],
        matrices: Matrices,
        *,
        exchanged: bool,
        whole: bool = False,
    ) -> NDArray[np.float64]:
        means = {flank: self._means.values(placements, flank, whole=whole) for flank in self._flanks}
        if exchanged:
            means = {flank: (alternative, reference) for flank, (reference, alternative) in means.items()}
        columns = [
            head.predict(head.spec.matrix(ratios, *means[head.spec.flank]), matrix)
            for head, matrix in zip(self._heads, matrices)
        ]
        return np.stack(columns, axis=1)

    def _drawn(self, measured: MeasuredError, placements: Sequence[Placement], spent: int) -> list[int]:
        """Numbers of the alleles that are run whole as well.   spent: tokens."""
        windows = [self._means.near(one, self._flanks[0]) or 0 for one in placements]
        near = [number for number, length in enumerate(windows) if length]
        passes = 2 * self._strands * len(self._flanks)
        return measured.draw(placements, near, lambda number: passes * windows[number], spent)

    def _told(self, variant: Variant | Allele) -> Mapping[str, object] | None:
        own = getattr(variant, "covariates", None)
        beside = self._covariates.of(variant) if self._covariates is not None else None
        return own if beside is None else {**(own or {}), **beside}


def head_passes(model: SequenceModel, options: ScoringOptions, extras: Extras, means: PairMeans) -> HeadPasses | None:
    """What runs the heads that `options` name, None where they name none.   options: with the strands that are run.

    Raises: UsageError for a head that is not there, or was trained under other settings.
    """
    if not options.heads:
        return None
    present = {head.name: head for head in extras.heads}
    absent = [name for name in options.heads if name not in present]
    if absent:
        raise UsageError(
            f"{absent[0]!r} is no method; wanted one or several of {', '.join(METHODS)}, or a head, which has to be "
            "given among the extras: load_extras(MODEL, [NAME])."
        )
    heads = tuple(present[name] for name in options.heads)
    for head in heads:
        head.require_settings(head_settings(model, options))
    return HeadPasses(model, options, heads, means, extras.covariates)

"""Masked log-likelihood ratios by a count table of both flanks: the same probes as the model's, the same sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import InputFileError
from genossm.evaluation.markov import UNKNOWN, base_codes, reverse_complement_codes
from genossm.evaluation.two_sided import TwoSidedMarkov
from genossm.genome import Genome
from genossm.sequence import Variant
from genossm.variants import ScoringOptions
from genossm.variants.locate import Locator
from genossm.variants.probes import Probe, Term, masked_terms, sum_of_terms
from genossm.variants.reference import Letters

_BLOCK = 4096

Answers = dict[Probe, NDArray[np.float64]]


def two_sided_ratios(
    model: TwoSidedMarkov, genome: Genome, variants: Sequence[Variant], options: ScoringOptions
) -> NDArray[np.float64]:
    """(variants,) log-likelihood ratio of each, in nats, the mean over the strands of `options`.

    Raises: InputFileError for a variant that cannot be scored, which the file that it came from says it can.
    """
    locator = Locator(genome, options)
    result: list[float] = []
    for start in range(0, len(variants), _BLOCK):
        asked = [terms for variant in variants[start : start + _BLOCK] for terms in _terms(variant, locator, options)]
        probes = dict.fromkeys(term.probe for terms in asked for term in terms)
        answers = _answers(model, probes, locator.letters)
        result.extend(sum_of_terms(terms, answers.__getitem__) for terms in asked)
    return np.array(result).reshape(len(variants), len(options.strands)).mean(axis=1)


def _terms(variant: Variant, locator: Locator, options: ScoringOptions) -> list[tuple[Term, ...]]:
    """One entry a strand."""
    located = locator.locate(variant)
    if located.placement is None:
        raise InputFileError(
            f"{variant} counts as scored in the file, but is {located.status} on {locator.genome.name}."
        )
    return [masked_terms(located.placement, options.context, strand, locator.letters) for strand in options.strands]


def _answers(model: TwoSidedMarkov, probes: Iterable[Probe], source: Letters) -> Answers:
    """All probes at once: what each needs to see of its haplotype, with more unknown between them than a table sees."""
    gap = np.full(model.order, UNKNOWN, np.uint8)
    pieces: list[NDArray[np.uint8]] = []
    positions: list[NDArray[np.int64]] = []
    length = 0
    for probe in probes:
        codes, places = _neighbourhood(probe, model.order, source)
        pieces += [codes, gap]
        positions.append(places + length)
        length += len(codes) + len(gap)
    if not pieces:
        return {}
    found = model.log_probabilities_at(np.concatenate(pieces), np.concatenate(positions))
    ends = np.cumsum([len(places) for places in positions])
    return {probe: probe.on_plus(part) for probe, part in zip(probes, np.split(found, ends[:-1]))}


def _neighbourhood(probe: Probe, reach: int, source: Letters) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Codes from `reach` letters before the masked places to `reach` after, along the strand, and these places."""
    start = max(0, probe.first - reach)
    codes = base_codes(probe.haplotype.read(source)[start : probe.last + reach])
    codes[probe.first - start : probe.last - start] = UNKNOWN
    places = np.arange(probe.first - start, probe.last - start)
    if probe.strand == "-":
        return reverse_complement_codes(codes), len(codes) - 1 - places[::-1]
    return codes, places

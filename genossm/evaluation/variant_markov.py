"""Causal log-likelihood ratios by a Markov model: the same alleles, haplotypes, letters and strands as the model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import InputFileError
from genossm.evaluation.markov import MarkovModel, base_codes
from genossm.genome import Genome
from genossm.sequence import Variant
from genossm.variants import ScoringOptions
from genossm.variants.haplotypes import Contrast, contrasts
from genossm.variants.locate import Locator
from genossm.variants.reference import Letters


def markov_ratios(
    model: MarkovModel, genome: Genome, variants: Sequence[Variant], options: ScoringOptions
) -> NDArray[np.float64]:
    """(variants,) log-likelihood ratio of each, in nats, the mean over the strands of `options`.

    Raises: InputFileError for a variant that cannot be scored, which the file that it came from says it can.
    """
    locator = Locator(genome, options)
    result = np.zeros(len(variants))
    for number, variant in enumerate(variants):
        located = locator.locate(variant)
        if located.placement is None:
            raise InputFileError(f"{variant} counts as scored in the file, but is {located.status} on {genome.name}.")
        items = contrasts(located.placement, options, locator.letters)
        result[number] = np.mean([_ratio(model, item, locator.letters) for item in items])
    return result


def _ratio(model: MarkovModel, item: Contrast, source: Letters) -> float:
    """One strand. `before` is all that a Markov model looks back, within the window as the model's context is."""
    prefix = item.start - item.fork
    alternative = item.alt[prefix:]
    if item.ref is None:
        reference = item.window.letters(source, item.start, item.start + item.count)
    else:
        reference = item.ref[prefix:]
    before = item.window.letters(source, max(0, item.fork - model.order), item.fork) + item.alt[:prefix]
    kept = _until_they_agree(reference, alternative, model.order)
    return model.log_likelihood_ratio(base_codes(before), base_codes(reference[:kept]), base_codes(alternative[:kept]))


def _until_they_agree(reference: bytes, alternative: bytes, order: int) -> int:
    """Letters after which both haplotypes are the same for good and every further term cancels exactly."""
    a, b = np.frombuffer(reference, np.uint8), np.frombuffer(alternative, np.uint8)
    differ = np.flatnonzero(a != b)
    return int(differ[-1]) + order + 1 if len(differ) else 0

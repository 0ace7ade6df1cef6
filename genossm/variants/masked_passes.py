"""Masked log-likelihood ratios: of what neighbouring alleles ask, every different probe is run once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.inference import masked_log_probabilities, require_masked
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.options import ScoringOptions
from genossm.variants.probes import Probe, masked_terms, sum_of_terms
from genossm.variants.reference import Letters
from genossm.variants.window_batches import Rows, equal_lengths, neighbours

Answer = NDArray[np.float64]


class MaskedPasses:
    """Runs placements through a masked model.

    batch_size: windows in one pass; None chooses by their length.
    Raises: MethodError for a model that is not masked.
    """

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        require_masked(model)
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._rows = Rows(source, model.tokenizer)

    def values(
        self, placements: Sequence[Placement], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """(placements, strands, 1) log-likelihood ratios in nats, the same whatever else is among `placements`.

        progress: called with the number of windows just run.
        """
        found = np.zeros((len(placements), len(self._options.strands), 1))
        for chosen in neighbours(placements):
            asked = [
                masked_terms(placements[number], self._options.context, strand, self._source)
                for number in chosen
                for strand in self._options.strands
            ]
            answers = self._run(dict.fromkeys(term.probe for terms in asked for term in terms), progress)
            sums = [sum_of_terms(terms, answers.__getitem__) for terms in asked]
            found[chosen] = np.reshape(sums, (len(chosen), -1, 1))
        return found

    def _run(self, probes: Iterable[Probe], progress: Callable[[int], None] | None) -> dict[Probe, Answer]:
        """The answers to different probes, in as few passes as their lengths allow."""
        answers: dict[Probe, Answer] = {}
        device = self._model.device.type
        batches = equal_lengths(probes, lambda probe: len(probe.haplotype), batch_size=self._batch_size, device=device)
        for batch in batches:
            answers.update(zip(batch, self._answers(batch)))
            if progress:
                progress(len(batch))
        return answers

    def _answers(self, probes: Sequence[Probe]) -> list[Answer]:
        """One pass; all haplotypes are equally long."""
        ids = np.stack([self._rows.ids(probe.haplotype, probe.strand) for probe in probes])
        masked = np.zeros(ids.shape, dtype=bool)
        for row, probe in enumerate(probes):
            masked[row, probe.places] = True
        found = masked_log_probabilities(self._model, torch.from_numpy(ids), torch.from_numpy(masked)).cpu().numpy()
        ends = np.cumsum([probe.last - probe.first for probe in probes])
        return [probe.on_plus(part) for probe, part in zip(probes, np.split(found, ends[:-1]))]

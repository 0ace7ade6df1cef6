"""Masked log-likelihood ratios: of what neighbouring alleles ask, every different probe is run once.

Where windows are long, probes are answered from neighbourhoods of what they change; how far that is from whole windows
is measured on some alleles of each call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.inference import masked_log_probabilities, require_masked
from genossm.models import SequenceModel
from genossm.sequence import Placement
from genossm.variants.haplotypes import allele_window
from genossm.variants.measured import MeasuredError
from genossm.variants.methods import MASKED_FLANK, MLM
from genossm.variants.neighbourhood import Neighbourhoods
from genossm.variants.options import ScoringOptions
from genossm.variants.probes import Probe, masked_terms, sum_of_terms
from genossm.variants.reference import Letters
from genossm.variants.window_batches import Rows, equal_lengths, groups

Answer = NDArray[np.float64]
Progress = Callable[[int], None] | None


class MaskedPasses:
    """Runs placements through a masked model.

    batch_size: windows, or neighbourhoods, in one pass; None chooses by their length.
    measured: the error of neighbourhoods so far; None where all windows are run whole.
    Raises: MethodError for a model that is not masked.
    """

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        require_masked(model)
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._rows = Rows(source, model.tokenizer)
        self._near = Neighbourhoods(model, source, options.neighbourhood, batch_size=batch_size)
        self.measured: MeasuredError | None = None
        if options.neighbours(MLM):
            self.measured = MeasuredError({"neighbourhood": options.neighbourhood, "against": "whole windows"})

    def values(self, placements: Sequence[Placement], progress: Progress = None) -> NDArray[np.float64]:
        """(placements, strands, 1) log-likelihood ratios in nats, the same whatever else is among `placements`.

        progress: called with the number of windows, or neighbourhoods, just run.
        """
        found = np.zeros((len(placements), len(self._options.strands), 1))
        before = self._near.tokens
        for chosen in groups(placements, self._options, self._source):
            found[chosen] = self._ratios([placements[number] for number in chosen], progress)
        self._measure(placements, found, self._near.tokens - before)
        return found

    def _ratios(
        self, placements: Sequence[Placement], progress: Progress, *, whole: bool = False
    ) -> NDArray[np.float64]:
        asked = [
            masked_terms(placement, self._options.context, strand, self._source)
            for placement in placements
            for strand in self._options.strands
        ]
        probes = dict.fromkeys(term.probe for terms in asked for term in terms)
        answers: dict[Probe, Answer] = {}
        for batch, found in self._run(probes, whole=whole):
            answers.update(zip(batch, found))
            if progress:
                progress(len(batch))
        sums = [sum_of_terms(terms, answers.__getitem__) for terms in asked]
        return np.reshape(sums, (len(placements), -1, 1))

    def _run(self, probes: Iterable[Probe], *, whole: bool) -> Iterator[tuple[Sequence[Probe], list[Answer]]]:
        """Different probes in batches, in as few passes as their lengths allow, and their answers."""
        near: dict[object, list[Probe]] = defaultdict(list)
        far: list[Probe] = []
        for probe in probes:
            one = probe.haplotype
            if whole or not self._options.splits(one.end - one.start):
                far.append(probe)
            else:
                near[one.contig, one.start, one.end, probe.strand].append(probe)
        for of_window in near.values():
            yield from self._near.answers(of_window)
        device = self._model.device.type
        for batch in equal_lengths(far, lambda probe: len(probe.haplotype), batch_size=self._batch_size, device=device):
            yield batch, self._answers(batch)

    def _answers(self, probes: Sequence[Probe]) -> list[Answer]:
        """One pass; all haplotypes are equally long."""
        ids = np.stack([self._rows.ids(probe.haplotype, probe.strand) for probe in probes])
        masked = np.zeros(ids.shape, dtype=bool)
        for row, probe in enumerate(probes):
            masked[row, probe.places] = True
        found = masked_log_probabilities(self._model, torch.from_numpy(ids), torch.from_numpy(masked)).cpu().numpy()
        ends = np.cumsum([probe.last - probe.first for probe in probes])
        return [probe.on_plus(part) for probe, part in zip(probes, np.split(found, ends[:-1]))]

    def _measure(self, placements: Sequence[Placement], found: NDArray[np.float64], spent: int) -> None:
        """Run some alleles whole.   spent: tokens."""
        if self.measured is None:
            return
        windows = [allele_window(one, self._options.context, "+", self._source) for one in placements]
        near = [number for number, window in enumerate(windows) if self._options.splits(window.end - window.start)]

        def cost(number: int) -> int:
            same_length = len(placements[number].ref) == len(placements[number].alt)
            passes = len(self._options.strands) * (1 if same_length else 4 * MASKED_FLANK)
            return passes * (windows[number].end - windows[number].start)

        for number in self.measured.draw(placements, near, cost, spent):
            full = self._ratios([placements[number]], None, whole=True)
            self.measured.add(placements[number], float(found[number].mean() - full.mean()))

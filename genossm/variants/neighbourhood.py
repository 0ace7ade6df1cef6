"""Answers to probes from neighbourhoods of what they change, all of a window's from one pass over its reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.inference import boundary_states, masked_log_probabilities_between
from genossm.models import SequenceModel
from genossm.nn.boundaries import Edges
from genossm.sequence import NucleotideTokenizer
from genossm.variants.options import NEIGHBOURHOOD_GRID, Strand
from genossm.variants.probes import Haplotype, Probe
from genossm.variants.reference import Letters
from genossm.variants.window_batches import equal_lengths

Answer = NDArray[np.float64]
Stretch = tuple[int, int]

# The grid bounds the number of states of a window; more than this many bytes are kept in turns.
_STATE_BYTES = {"cpu": 1 << 29}
_STATE_BYTES_ELSEWHERE = 1 << 32


def stretch_around(probe: Probe, neighbourhood: int) -> Stretch:
    """The reference bases of a probe's neighbourhood, counted on the plus strand from the window's start."""
    one = probe.haplotype
    first, last = probe.first, probe.last
    if one.last > one.first or one.letters:
        longer = len(one.letters) - (one.last - one.first)
        inserted = one.first + len(one.letters)
        first = min(one.first, first if first < inserted else first - longer)
        last = max(one.last, last - longer if last > inserted else min(last, one.first))
    return (
        max(0, (first - neighbourhood) // NEIGHBOURHOOD_GRID * NEIGHBOURHOOD_GRID),
        min(one.end - one.start, -(-(last + neighbourhood) // NEIGHBOURHOOD_GRID) * NEIGHBOURHOOD_GRID),
    )


class Neighbourhoods:
    """Runs probes that are all of one window and strand.   tokens: read so far, the reference's included."""

    def __init__(
        self, model: SequenceModel, source: Letters, neighbourhood: int, *, batch_size: int | None = None
    ) -> None:
        self._model, self._source, self._width, self._batch_size = model, source, neighbourhood, batch_size
        self.tokens = 0

    def answers(self, probes: Sequence[Probe]) -> Iterator[tuple[Sequence[Probe], list[Answer]]]:
        """Batches of probes and their answers."""
        by_stretch: dict[Stretch, list[Probe]] = defaultdict(list)
        for probe in probes:
            by_stretch[stretch_around(probe, self._width)].append(probe)
        for stretches in affordable(self._model, sorted(by_stretch)):
            edges = self._read_reference(probes[0].haplotype, probes[0].strand, stretches)
            asked = [(stretch, probe) for stretch in stretches for probe in by_stretch[stretch]]
            batches = equal_lengths(asked, _length, batch_size=self._batch_size, device=self._model.device.type)
            for batch in batches:
                yield [probe for _, probe in batch], self._run(batch, edges)

    def _read_reference(self, haplotype: Haplotype, strand: Strand, stretches: Sequence[Stretch]) -> Edges:
        window = Haplotype(haplotype.contig, haplotype.start, haplotype.end)
        along = [along_strand(stretch, len(window), strand) for stretch in stretches]
        self.tokens += len(window)
        ids = torch.from_numpy(strand_ids(self._model.tokenizer, window.read(self._source), strand))
        return boundary_states(self._model, ids, {first for first, _ in along}, {last for _, last in along})

    def _run(self, batch: Sequence[tuple[Stretch, Probe]], edges: Edges) -> list[Answer]:
        """One pass; all neighbourhoods are equally long."""
        rows, places = [], []
        for (first, last), probe in batch:
            one = probe.haplotype
            letters = one.read(self._source, first, last + len(one) - (one.end - one.start))
            row = strand_ids(self._model.tokenizer, letters, probe.strand)
            masked = np.zeros(len(row), dtype=bool)
            masked[slice(*along_strand((probe.first - first, probe.last - first), len(row), probe.strand))] = True
            rows.append(row)
            places.append(masked)
        ids, masks = np.stack(rows), np.stack(places)
        self.tokens += ids.size
        length = batch[0][1].haplotype.end - batch[0][1].haplotype.start
        states = edges.between([along_strand(stretch, length, probe.strand) for stretch, probe in batch])
        found = masked_log_probabilities_between(self._model, torch.from_numpy(ids), torch.from_numpy(masks), states)
        ends = np.cumsum([probe.last - probe.first for _, probe in batch])
        return [probe.on_plus(part) for (_, probe), part in zip(batch, np.split(found.cpu().numpy(), ends[:-1]))]


def _length(asked: tuple[Stretch, Probe]) -> int:
    (first, last), probe = asked
    one = probe.haplotype
    return last - first + len(one) - (one.end - one.start)


def affordable(model: SequenceModel, stretches: Sequence[Stretch]) -> Iterator[Sequence[Stretch]]:
    """Neighbours whose states fit into memory together."""
    config = model.config
    a_place = 4 * config.n_layer * config.d_inner * (config.d_state + config.d_conv - 1) * (1 + config.equivariant)
    size = max(1, _STATE_BYTES.get(model.device.type, _STATE_BYTES_ELSEWHERE) // (2 * a_place))
    for start in range(0, len(stretches), size):
        yield stretches[start : start + size]


def along_strand(span: Stretch, length: int, strand: Strand) -> Stretch:
    """A span of the plus strand's letters as a strand that is `length` letters long counts them."""
    return span if strand == "+" else (length - span[1], length - span[0])


def strand_ids(tokenizer: NucleotideTokenizer, letters: bytes, strand: Strand) -> NDArray[np.uint8]:
    """(length,) token ids of the plus strand's letters as a strand reads them."""
    ids = tokenizer.encode(letters)
    return ids if strand == "+" else tokenizer.reverse_complement(ids)

"""ln p of every base of a region under a causal model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.inference import log_probabilities, prefix_pass, require_causal, stream, token_log_probabilities
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

T = TypeVar("T")

# Tokens in one forward pass, over all windows of a batch: a few hundred megabytes for a small model.
_BATCH_TOKENS = 1 << 16


def base_log_probabilities(
    model: SequenceModel, genome: Genome, region: Interval, *, context: int | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Natural log p of each base of `region` on the plus strand, and which of them were scored, both (length,).

    context: bases a window. Windows start half of it apart and each scores its second half, so that every base is
        predicted from at least context / 2 bases before it (fewer at a contig's start); they may reach left of the
        region. None: one pass over the region from its first base on, the state carried to its end.
    Not scored, and 0: letters other than A, C, G, T, and a first base that nothing precedes.
    Raises: MethodError for a model that is not causal; ConfigError if the context is odd or below 2.
    """
    require_causal(model)
    if context is None:
        return _one_pass(model, genome, region)
    if context < 2 or context % 2:
        raise ConfigError(f"A context of {context} bases cannot be halved; wanted an even number of at least 2.")
    values, scored = np.zeros(len(region)), np.zeros(len(region), bool)
    for batch in batches(_windows(region, context), max(1, _BATCH_TOKENS // context)):
        ids = np.stack([genome.encode(window, model.tokenizer) for window, _ in batch])
        picked, known = token_log_probabilities(
            prefix_pass(model, torch.from_numpy(ids)).log_probabilities[:, :-1],
            torch.from_numpy(ids),
            base_ids=model.tokenizer.base_ids,
        )
        for (window, first), row, known_row in zip(batch, picked.numpy(), known.numpy()):
            place = slice(first - region.start, window.end - region.start)
            values[place], scored[place] = row[first - window.start :], known_row[first - window.start :]
    return values, scored


def _windows(region: Interval, context: int) -> Iterator[tuple[Interval, int]]:
    """Windows that tile a region, each with the first position that it scores."""
    half = context // 2
    for first in range(region.start, region.end, half):
        window = Interval(region.contig, max(0, first - half), min(first + half, region.end))
        yield window, first


def batches(windows: Iterator[tuple[Interval, T]], size: int) -> Iterator[list[tuple[Interval, T]]]:
    """Runs of windows of one length: only the first and the last of a region differ from the others."""
    batch: list[tuple[Interval, T]] = []
    for entry in windows:
        if batch and (len(batch) == size or len(entry[0]) != len(batch[0][0])):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


def _one_pass(model: SequenceModel, genome: Genome, region: Interval) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    ids = torch.from_numpy(genome.encode(Interval(region.contig, region.start, region.end), model.tokenizer))[None]
    lead = 1 if model.begins_with_bos else 0
    read = model.prepend_bos(ids) if lead else ids
    values, scored = np.zeros(len(region)), np.zeros(len(region), bool)
    for segment in stream(model, read[:, :-1]):
        # The logits of token t speak of token t + 1, which is base t + 1 - lead.
        first = segment.start + 1 - lead
        after = first + segment.logits.shape[1]
        picked, known = token_log_probabilities(
            log_probabilities(segment.logits, base_ids=model.tokenizer.base_ids, dtype=torch.float64).cpu(),
            ids[:, first:after],
            base_ids=model.tokenizer.base_ids,
        )
        values[first:after], scored[first:after] = picked[0].numpy(), known[0].numpy()
    return values, scored

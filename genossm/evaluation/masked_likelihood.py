"""ln p of hidden bases of a region under a masked model."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.likelihood import batches
from genossm.inference import masked_log_probabilities, require_masked
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

# Tokens in one forward pass, over all windows of a batch.
_BATCH_TOKENS = 1 << 16
_PLACES = 1 << 16


def hidden_places(region: Interval, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(length,) which places of a region are hidden: a share `fraction`, each on its own.

    A function of seed, contig and position alone, so that regions which overlap agree, and windows of any length too.
    Letters are not looked at: what is N there is not judged.
    """
    parts = []
    for number in range(region.start // _PLACES, (region.end - 1) // _PLACES + 1):
        key = [seed, (zlib.crc32(region.contig.encode()) << 32) + number]
        drawn = np.random.Generator(np.random.Philox(key=key)).random(_PLACES)
        first = number * _PLACES
        parts.append(drawn[max(0, region.start - first) : region.end - first])
    return np.concatenate(parts) < fraction


def hidden_log_probabilities(
    model: SequenceModel, genome: Genome, region: Interval, *, fraction: float, seed: int, context: int | None
) -> NDArray[np.float64]:
    """(length,) natural log p of each hidden base of `region` with every hidden base around it hidden too; 0 elsewhere.

    fraction, seed: which places are hidden, see `hidden_places`; all of them, of letters A, C, G, T, read [MASK].
    context: bases a window. Windows start half of it apart and each predicts its middle half, so that every base has
        at least context / 4 bases on either side (fewer at a contig's ends); they may reach beyond the region.
        None: one window, the region.
    Raises: MethodError for a causal model; ConfigError if the context is no multiple of 4.
    """
    require_masked(model)
    if context is not None and (context < 4 or context % 4):
        raise ConfigError(f"A context of {context} bases cannot be quartered; wanted a multiple of 4.")
    values = np.zeros(len(region))
    windows = _windows(region, genome.length(region.contig), context)
    for batch in batches(windows, max(1, _BATCH_TOKENS // (context or len(region)))):
        true = np.stack([genome.encode(window, model.tokenizer) for window, _ in batch])
        hidden = np.stack([hidden_places(window, fraction, seed) for window, _ in batch])
        for (window, judged), row in zip(batch, _predict(model, true, hidden)):
            place = slice(judged.start - region.start, judged.end - region.start)
            values[place] = row[judged.start - window.start : judged.end - window.start]
    return values


def _predict(model: SequenceModel, true: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.float64]:
    """ln p of the bases that are hidden (batch, length), 0 elsewhere."""
    base_ids = np.array(model.tokenizer.base_ids)
    chosen = hidden & np.isin(true, base_ids)
    found = masked_log_probabilities(model, torch.from_numpy(true), torch.from_numpy(chosen)).cpu().numpy()
    code = np.argmax(true[chosen][:, None] == base_ids, axis=1)
    values = np.zeros(true.shape)
    values[chosen] = found[np.arange(len(found)), code]
    return values


def _windows(region: Interval, contig_length: int, context: int | None) -> Iterator[tuple[Interval, Interval]]:
    """Windows that cover a region, each with the part of the region that it predicts."""
    if context is None:
        yield region, region
        return
    half, quarter = context // 2, context // 4
    for first in range(region.start, region.end, half):
        start, end = max(0, first - quarter), min(first + half + quarter, contig_length)
        judged = Interval(region.contig, first, min(first + half, region.end))
        yield Interval(region.contig, start, end), judged

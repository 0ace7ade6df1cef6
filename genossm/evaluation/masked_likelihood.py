"""ln p of hidden bases of a region under a masked model."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.likelihood import windows_a_pass
from genossm.evaluation.window_runs import window_runs
from genossm.inference import masked_log_probabilities, require_masked
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

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
    around = _around(region, genome.length(region.contig), context)
    half, flank = (len(region), 0) if context is None else (context // 2, context // 4)
    true = genome.encode(around, model.tokenizer)
    hidden = hidden_places(around, fraction, seed)
    values = np.zeros(len(region))
    size = windows_a_pass(model, half + 2 * flank)
    for run in window_runs(region, around, half=half, left=flank, right=flank, size=size):
        rows = _predict(model, run.windows(true, around.start), run.windows(hidden, around.start))
        judged = rows[:, run.first - run.start : run.first - run.start + half].reshape(-1)
        values[run.first - region.start : run.last - region.start] = judged[: run.last - run.first]
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


def _around(region: Interval, contig_length: int, context: int | None) -> Interval:
    """What the windows of a region read: a quarter of a window before it, and as far as the last window reaches."""
    if context is None:
        return region
    half, quarter = context // 2, context // 4
    last = region.start + (len(region) - 1) // half * half
    return Interval(region.contig, max(0, region.start - quarter), min(last + half + quarter, contig_length))

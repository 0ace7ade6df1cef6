"""ln p of every base of a region under a causal model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genossm.core.errors import ConfigError
from genossm.evaluation.window_runs import window_runs
from genossm.inference import log_probabilities, require_causal, stream, token_log_probabilities
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

# Tokens in one forward pass, over all windows of a batch: a few hundred megabytes for a small model.
_BATCH_TOKENS = 1 << 16
# A GPU is idle half the time with less.
_GPU_BATCH_TOKENS = 1 << 19
# Windows in one pass, however short they are: a GPU's grid has an end.
_BATCH_WINDOWS = 1 << 14


def tokens_a_pass(model: SequenceModel) -> int:
    """How many tokens an evaluation reads at once on the model's device."""
    return _GPU_BATCH_TOKENS if model.device.type == "cuda" else _BATCH_TOKENS


def windows_a_pass(model: SequenceModel, length: int) -> int:
    """How many windows of `length` tokens an evaluation reads at once."""
    return max(1, min(tokens_a_pass(model) // length, _BATCH_WINDOWS))


def base_log_probabilities(
    model: SequenceModel, genome: Genome, region: Interval, *, context: int | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Natural log p of each base of `region` on the plus strand, and which of them were scored, both (length,).

    context: bases a window. Windows start half of it apart and each scores its second half, so that every base is
        predicted from at least context / 2 bases before it (fewer at a contig's start); they may reach left of the
        region. Long ones are read in segments that hand the state on: a megabase needs no more memory than a segment.
        None: one pass over the region from its first base on, the state carried to its end.
    Not scored, and 0: letters other than A, C, G, T, and a first base that nothing precedes.
    Raises: MethodError for a model that is not causal; ConfigError if the context is odd or below 2.
    """
    require_causal(model)
    if context is None:
        return _one_pass(model, genome, region)
    if context < 2 or context % 2:
        raise ConfigError(f"A context of {context} bases cannot be halved; wanted an even number of at least 2.")
    half = context // 2
    around = Interval(region.contig, max(0, region.start - half), region.end)
    ids = genome.encode(around, model.tokenizer)
    values, scored = np.zeros(len(region)), np.zeros(len(region), bool)
    size = windows_a_pass(model, context)
    for run in window_runs(region, around, half=half, left=half, right=0, size=size):
        windows = torch.from_numpy(run.windows(ids, around.start))
        picked, known = _score_windows(model, windows, run.first - run.start)
        place = slice(run.first - region.start, run.last - region.start)
        values[place], scored[place] = picked.reshape(-1), known.reshape(-1)
    return values, scored


def _score_windows(model: SequenceModel, windows: Tensor, first: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """ln p of the bases from `first` on in each window, and which were scored, both (windows, length - first)."""
    lead = 1 if model.begins_with_bos else 0
    count, length = windows.shape
    picked, known = np.zeros((count, length - first)), np.zeros((count, length - first), bool)
    read = (model.prepend_bos(windows) if lead else windows)[:, :-1]
    for segment in stream(model, read, segment_length=max(1, tokens_a_pass(model) // count)):
        # The logits of token t speak of token t + 1, which is base t + 1 - lead.
        told = segment.start + 1 - lead
        after = told + segment.logits.shape[1]
        skipped = max(0, first - told)
        if after <= first:
            continue
        place = slice(told + skipped - first, after - first)
        values, counted = token_log_probabilities(
            log_probabilities(segment.logits[:, skipped:], base_ids=model.tokenizer.base_ids, dtype=torch.float64),
            windows[:, told + skipped : after].to(segment.logits.device),
            base_ids=model.tokenizer.base_ids,
        )
        picked[:, place], known[:, place] = values.cpu().numpy(), counted.cpu().numpy()
    return picked, known


def _one_pass(model: SequenceModel, genome: Genome, region: Interval) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    ids = torch.from_numpy(genome.encode(Interval(region.contig, region.start, region.end), model.tokenizer))[None]
    picked, known = _score_windows(model, ids, 0)
    return picked[0], known[0]

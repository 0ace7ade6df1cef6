"""One reference pass for many alternatives: probabilities of every base, states to branch from, continuations.

Which logits speak of which base. A causal model's output at token t predicts token t + 1. All functions here undo
that shift: entry i of `log_probabilities` is the distribution of base i of the window, given [BOS] (if the model
begins with it) and bases 0 .. i - 1. Entry 0 comes from [BOS]; without [BOS] nothing precedes it, and it is NaN.
Entry `length` is the distribution of the base after the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from genossm.inference.probabilities import log_probabilities
from genossm.inference.streaming import SEGMENT_LENGTH, require_causal, stream
from genossm.models import SequenceModel, StackState


@dataclass(frozen=True, eq=False)
class PrefixPass:
    """What one pass over a batch of windows leaves behind.

    log_probabilities: entry i speaks of base i; see the module's text. float64, natural logarithm.
    states: position p to the state of all rows after [BOS] and bases 0 .. p - 1, before base p.
    """

    log_probabilities: Float64[Tensor, "batch length_and_one 4"]
    states: dict[int, StackState]

    def branch(self, places: Sequence[tuple[int, int]]) -> Branches:
        """Gather (row, position) pairs into one batch to continue from; positions must have been asked for.

        Raises: KeyError for a position without a state, naming those that have one.
        """
        absent = sorted({position for _, position in places} - set(self.states))
        if absent:
            raise KeyError(f"No state was kept at positions {absent}; there are {sorted(self.states)}.")
        state = StackState.cat([self.states[position].select([row]) for row, position in places])
        rows, positions = (list(column) for column in zip(*places))
        return Branches(state, self.log_probabilities[rows, positions])


@dataclass(frozen=True, eq=False)
class Branches:
    """Prefixes to continue.   next_log_probabilities: the distribution of the base that follows each prefix."""

    state: StackState
    next_log_probabilities: Float64[Tensor, "batch 4"]

    @staticmethod
    def cat(branches: Sequence[Branches]) -> Branches:
        """One batch with the rows of all; of different windows too."""
        return Branches(
            StackState.cat([branch.state for branch in branches]),
            torch.cat([branch.next_log_probabilities for branch in branches]),
        )

    def select(self, rows: Int[Tensor, " chosen"] | Sequence[int]) -> Branches:
        """Some rows, in that order; a row may be asked for more than once."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return Branches(self.state.select(index), self.next_log_probabilities[index])


def prefix_pass(
    model: SequenceModel,
    windows: Int[Tensor, "batch length"],
    positions: Iterable[int] = (),
    *,
    segment_length: int = SEGMENT_LENGTH,
) -> PrefixPass:
    """Read each window once, with [BOS] in front if the model begins with it, and keep states at `positions`.

    windows: token ids of bases, without [BOS].
    positions: 0 .. length; a segment ends at each, so that a few hundred tokens between two cost next to nothing.
    To branch at a position without a state, branch at one before it and let the continuation run through the
    bases between.
    Raises: MethodError for a model that is not causal; ValueError for a position outside the window.
    """
    require_causal(model)
    batch, length = windows.shape
    wanted = sorted(set(positions))
    if wanted and not 0 <= wanted[0] <= wanted[-1] <= length:
        raise ValueError(f"Positions run from {wanted[0]} to {wanted[-1]}; wanted 0 to {length}, the window's length.")
    lead = 1 if model.begins_with_bos else 0
    ids = model.prepend_bos(windows) if lead else windows
    result = torch.full((batch, length + 1, 4), torch.nan, dtype=torch.float64)
    states = {} if lead or 0 not in wanted else {0: model.backbone.initial_state(batch)}
    for segment in stream(
        model, ids, segment_length=segment_length, cuts=tuple(position + lead for position in wanted)
    ):
        # Token t of `ids` is base t - lead, and its logits speak of base t - lead + 1.
        first = segment.start - lead + 1
        values = log_probabilities(segment.logits, base_ids=model.tokenizer.base_ids, dtype=torch.float64)
        after = first + values.shape[1]
        result[:, first:after] = values.cpu()
        if after - 1 in wanted:
            states[after - 1] = segment.state
    return PrefixPass(result, states)


def continuation_log_probabilities(
    model: SequenceModel,
    branches: Branches,
    ids: Int[Tensor, "batch length"],
    *,
    segment_length: int = SEGMENT_LENGTH,
) -> Float64[Tensor, "batch length 4"]:
    """Distributions of the bases `ids`, one row a branch: entry j is that of `ids[:, j]` given prefix and `ids[:, :j]`.

    The last token is predicted and not read. Rows of different lengths: pad on the right with anything and ignore
    the entries there; a causal model does not look ahead.
    Raises: MethodError for a model that is not causal; ValueError if there is not one row a branch.
    """
    if ids.shape[0] != branches.state.batch_size:
        raise ValueError(f"There are {branches.state.batch_size} branches and {ids.shape[0]} rows of ids.")
    require_causal(model)
    entries = [branches.next_log_probabilities.cpu()[:, None]]
    if ids.shape[1] > 1:
        for segment in stream(model, ids[:, :-1], state=branches.state, segment_length=segment_length):
            values = log_probabilities(segment.logits, base_ids=model.tokenizer.base_ids, dtype=torch.float64)
            entries.append(values.cpu())
    return torch.cat(entries, dim=1)

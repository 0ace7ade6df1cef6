"""Where a NaN came from, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genossm.parallel import whole
from genossm.sequence.interval import Interval

_SHOWN_INTERVALS = 4


def non_finite_message(
    step: int,
    loss: float,
    groups: Sequence[dict[str, Any]],
    intervals: Sequence[Interval],
    *,
    has_checkpoint: bool,
) -> str:
    """What broke at `step`: the loss or a gradient, in which parameter and group, on which windows.

    groups: an optimizer's, with "name" and "parameter_names" as `parameter_groups` gives them.
    has_checkpoint: whether there is one to go on from.
    """
    what = "the norm of the gradients overflows" if math.isfinite(loss) else f"the loss is {loss}"
    found = _first_non_finite(groups)
    if found is not None:
        group, name, place = found
        what += f"; the first {place} that is not finite belongs to {name} (parameter group {group!r})"
    shown = ", ".join(map(str, intervals[:_SHOWN_INTERVALS]))
    more = f" and {len(intervals) - _SHOWN_INTERVALS} more" if len(intervals) > _SHOWN_INTERVALS else ""
    return (
        f"Training stopped at step {step}: {what}. The batch was {shown}{more}. Lower optimizer.learning_rate or "
        f"run.gradient_clip, or lengthen schedule.warmup_steps. {how_to_go_on(has_checkpoint)}"
    )


def how_to_go_on(has_checkpoint: bool) -> str:
    """With a configuration that was changed after a NaN."""
    if has_checkpoint:
        return "--resume --allow-changes goes on from the last checkpoint."
    return "No checkpoint was written yet: start anew with --force."


def _first_non_finite(groups: Sequence[dict[str, Any]]) -> tuple[str, str, str] | None:
    # A broken weight explains every broken gradient, so weights are looked at first.
    for place in ("weight", "gradient"):
        for group in groups:
            for name, parameter in zip(group.get("parameter_names", ()), group["params"]):
                tensor: Tensor | None = parameter.detach() if place == "weight" else parameter.grad
                if tensor is not None and not bool(torch.isfinite(whole(tensor)).all()):
                    return group.get("name", "?"), name, place
    return None

"""Parameter groups, optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from genossm.training.config import OptimizerConfig, ScheduleConfig

DECAY, NO_DECAY = "decay", "no_decay"


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_embeddings: bool = False) -> list[dict[str, Any]]:
    """Two AdamW groups, named "decay" and "no_decay", with the names of their parameters under "parameter_names".

    Not decayed: whatever is marked `_no_weight_decay` (A_log and D, whose decay would pull time scales towards one
    value), biases, every vector or scalar (norms), and embeddings unless `decay_embeddings`. A parameter that two
    modules share counts once, by its embedding if it is one.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {DECAY: [], NO_DECAY: []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        keeps = (
            getattr(parameter, "_no_weight_decay", False)
            or parameter.ndim < 2
            or name.rpartition(".")[2] in ("A_log", "D", "bias")
            or (id(parameter) in embeddings and not decay_embeddings)
        )
        groups[NO_DECAY if keeps else DECAY].append((name, parameter))
    return [
        {
            "name": group,
            "params": [parameter for _, parameter in members],
            "parameter_names": [name for name, _ in members],
            "weight_decay": weight_decay if group == DECAY else 0.0,
        }
        for group, members in groups.items()
        if members
    ]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`."""
    groups = parameter_groups(model, config.weight_decay, decay_embeddings=config.decay_embeddings)
    # One kernel for all parameters: a small model's step is otherwise mostly launches.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def numbered_by_name(state: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """An optimizer's state with its parameters numbered as `names` has them, and not as they stand in the groups.

    PyTorch reads either; strategies that spread an optimizer over processes read and write this one.
    """
    number = {name: index for index, name in enumerate(names)}
    groups = state.get("param_groups", ())  # none on processes that save nothing
    new = {
        old: number[name]
        for group in groups
        for old, name in zip(group["params"], group["parameter_names"], strict=True)
    }
    return {
        **state,
        "param_groups": [{**group, "params": [new[old] for old in group["params"]]} for group in groups],
        "state": {new[old]: kept for old, kept in state.get("state", {}).items()},
    }


def follow_config(groups: Sequence[dict[str, Any]], config: OptimizerConfig, rate: float) -> None:
    """Set saved groups of `build_optimizer` to what `config` says, and their learning rate to `rate`."""
    for group in groups:
        group["lr"], group["initial_lr"] = rate, config.learning_rate
        group["betas"], group["eps"] = config.betas, config.eps
        group["weight_decay"] = config.weight_decay if group["name"] == DECAY else 0.0


def schedule_factor(config: ScheduleConfig, total_steps: int | None) -> Callable[[int], float]:
    """Share of the learning rate at each step (0 is the first): (step + 1) / warmup_steps, then cosine or constant.

    The cosine reaches `final_fraction` at step `total_steps` (Loshchilov & Hutter 2017, without restarts).
    """

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.kind == "constant" or total_steps is None:
            return 1.0
        span = max(1, total_steps - config.warmup_steps)
        progress = min(1.0, (step - config.warmup_steps) / span)
        return config.final_fraction + (1.0 - config.final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor

"""Random weights with some life in them, so that a wrong one shows."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def enliven(module: M, seed: int = 0) -> M:
    """Move every weight off its initialisation, in place, and return the module.

    Freshly initialised, D is 1, norms are 1, biases 0, step sizes so small that little is forgotten: a model that
    ignored one of them would pass. Here every weight matters: changing any tensor by 5 % moves the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter)
            scale = 0.3 if "embedding" in name else 0.05
            if name.endswith("x_proj.weight"):
                parameter.mul_(3.0)
            elif name.endswith("dt_proj.weight"):
                parameter.mul_(2.0)
            elif name.endswith("dt_proj.bias"):
                parameter.add_(1.5)
            parameter.add_(noise * scale)
    return module

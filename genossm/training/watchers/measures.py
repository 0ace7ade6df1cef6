"""What is measured now and then inside a step: norms of gradients by block, of the step sizes' alone, and of states.

Everything stays on the device and joins the one transfer that a step makes anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from genossm.parallel import whole

BLOCK, DT, STATE, OTHERS = "gradient_norm", "dt_gradient_norm", "state_rms", "others"
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def layer_of(name: str) -> str:
    """The number of the block that a parameter or module belongs to, "others" for embedding, last norm and head."""
    found = _LAYER.search(f"{name}.")
    return found.group(1) if found else OTHERS


class Measures:
    """names: of the figures that `of_step` gives, in its order: `gradient_norm.<block>`, `dt_gradient_norm.<block>`,
    `state_rms.<block>`.

    Gradient norms are as they come, before clipping. The step sizes (dt) are all parameters of `dt_proj`. A state's
    root mean square is over rows, channels and states at the end of the last sequences read, the largest where a block
    has more than one mixer.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            self._groups.setdefault(f"{BLOCK}.{layer_of(name)}", []).append(parameter)
            if ".dt_proj." in name:
                self._groups.setdefault(f"{DT}.{layer_of(name)}", []).append(parameter)
        self._mixers = {module: layer_of(name) for name, module in model.named_modules() if hasattr(module, "dt_proj")}
        states = dict.fromkeys(f"{STATE}.{layer}" for layer in self._mixers.values())
        self.names = (*sorted(self._groups, key=_order), *sorted(states, key=_order))

    def of_step(self, states: Mapping[nn.Module, Sequence[Tensor]], device: torch.device) -> Tensor:
        """(len(names),) float32 on `device`, after the backward pass; NaN where a state was not seen."""
        figures = {name: _norm(parameters).to(device) for name, parameters in self._groups.items()}
        by_layer: dict[str, list[Tensor]] = {}
        for mixer, seen in states.items():
            by_layer.setdefault(f"{STATE}.{self._mixers[mixer]}", []).extend(map(_root_mean_square, seen))
        figures |= {name: torch.stack(found).amax() for name, found in by_layer.items()}
        unseen = torch.full((), torch.nan, device=device)
        return torch.stack([figures.get(name, unseen).float() for name in self.names])


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def _root_mean_square(state: Tensor) -> Tensor:
    return torch.linalg.vector_norm(state.float()) / state.numel() ** 0.5


def _order(name: str) -> tuple[str, int]:
    kind, _, layer = name.partition(".")
    return kind, int(layer) if layer.isdigit() else 1 << 30

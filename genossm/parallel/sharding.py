"""Weights and optimizer state spread over processes (fully sharded data parallelism, FSDP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from genossm.models import SequenceModel
from genossm.nn import Block


def shard(model: nn.Module, mesh: Any) -> None:
    """Spread the weights of `model` over the processes of `mesh`, which has one dimension.

    A block's weights are whole only while it runs; those outside the blocks (embedding, last norm, head) while the
    model runs. Names stay, parameters become DTensors, and so do gradients and what an optimizer keeps of them.
    """
    from torch.distributed.fsdp import fully_shard

    # What layers say of their parameters (no decay, float32) stands on the parameters, which are replaced.
    marks = {name: vars(parameter) for name, parameter in model.named_parameters()}
    for module in (*_blocks(model), model):
        fully_shard(module, mesh=mesh)
    for name, parameter in model.named_parameters():
        for mark, value in marks[name].items():
            setattr(parameter, mark, value)


def gather_weights(model: nn.Module) -> None:
    """All weights whole on every process, as plain tensors, until `release_weights`; nothing for other models.

    In between, passes without gradients wait for nobody: processes may make different numbers of them.
    """
    for module in _sharded(model):
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)


def release_weights(model: nn.Module) -> None:
    """Undo `gather_weights`."""
    for module in _sharded(model):
        module.reshard()
        # The model's own weights, next to nothing, stay from its forward to its backward pass.
        module.set_reshard_after_forward(module is not model, recurse=False)


def to_be_saved(model: SequenceModel) -> SequenceModel:
    """`model` itself, or, between `gather_weights` and `release_weights`, a copy that knows of no other process.

    The memory of gathered weights is not for others to look at: it is given back.
    """
    if not _sharded(model):
        return model
    copy = SequenceModel(model.config, model.tokenizer)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            parameter.copy_(weights[name])
    return copy


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def _sharded(model: nn.Module) -> list[Any]:
    """Those that `shard` gave more methods."""
    return [module for module in (*_blocks(model), model) if hasattr(module, "unshard")]

"""Let a model read one part of each sequence, with the processes that read the others as its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from genossm.core.errors import ParallelError
from genossm.nn import Mamba1
from genossm.parallel.exchange import EnteringInputs
from genossm.parallel.group import ContextGroup
from genossm.parallel.scan import scan_part


class PartNeighbours:
    """`genossm.nn.neighbours.Neighbours` over torch.distributed."""

    def __init__(self, group: ContextGroup) -> None:
        self.group = group

    def entering_inputs(
        self, x: Float[Tensor, "batch length d_inner"], count: int, *, reverse: bool
    ) -> tuple[Float[Tensor, "batch length d_inner"], Float[Tensor, "batch count d_inner"]]:
        if count == 0:
            return x, x[:, :0]
        if x.shape[1] < count:
            raise ParallelError(
                f"This part has {x.shape[1]} positions and the convolution looks {count} back. Split the sequence over "
                "fewer processes."
            )
        return EnteringInputs.apply(x, self.group, count, reverse)  # type: ignore[return-value]

    def scan(
        self, *inputs: Tensor, reverse: bool, backend: str
    ) -> tuple[Float[Tensor, "batch length d_inner"], Float[Tensor, "batch d_inner d_state"]]:
        u, delta, A, B, C, D, z, delta_bias = inputs
        return scan_part(self.group, u, delta, A, B, C, D, z, delta_bias, reverse=reverse, backend=backend)


def split_context(model: nn.Module, group: dist.ProcessGroup | ContextGroup | None = None) -> ContextGroup:
    """From now on `model` reads parts: every rank of `group` calls it at the same time, each with its own part.

    No parameter changes or is renamed. The gradients on a rank are those of the sum of all ranks' losses through what
    this rank computed: added up over the ranks, they are those of one process that reads the sequences whole.
    group: of torch.distributed, or a ContextGroup; None is all processes.
    Raises: ParallelError if torch.distributed has not been started.
    """
    place = group if isinstance(group, ContextGroup) else ContextGroup(group)
    for mixer in _mixers(model):
        mixer.neighbours = PartNeighbours(place)
    return place


def join_context(model: nn.Module) -> None:
    """Undo `split_context`: `model` reads whole sequences again."""
    for mixer in _mixers(model):
        mixer.neighbours = None


@contextmanager
def context_parallel(model: nn.Module, group: dist.ProcessGroup | None = None) -> Iterator[ContextGroup]:
    """`split_context` for as long as the block lasts. A backward pass may come later.

    >>> with context_parallel(model) as place:  # doctest: +SKIP
    ...     logits = model(place.take(input_ids)).logits  # of this rank's part
    """
    place = split_context(model, group)
    try:
        yield place
    finally:
        join_context(model)


def shortest_part(model: nn.Module) -> int:
    """Positions that each rank must have: what the widest convolution looks back."""
    return max([1, *(mixer.conv1d.kernel_size[0] - 1 for mixer in _mixers(model))])


def _mixers(model: nn.Module) -> list[Mamba1]:
    return [module for module in model.modules() if isinstance(module, Mamba1)]

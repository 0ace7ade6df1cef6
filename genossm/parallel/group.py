"""The processes that read one sequence together, and which stretch of it is whose."""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from torch import Tensor

from genossm.core.errors import ParallelError


def spans(length: int, ranks: int) -> tuple[slice, ...]:
    """One contiguous stretch a rank, in rank order; the first ones are longer by one where `length` does not divide."""
    share, longer = divmod(length, ranks)
    edges = [rank * share + min(rank, longer) for rank in range(ranks + 1)]
    return tuple(slice(start, stop) for start, stop in itertools.pairwise(edges))


class ContextGroup:
    """This process's place among those that read each sequence together.

    group: of torch.distributed; None is all processes.
    Raises: ParallelError if torch.distributed has not been started.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ParallelError(
                "Context parallelism needs a group of processes, and torch.distributed has not been started. Start the "
                "script with torchrun and call torch.distributed.init_process_group first."
            )
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    @classmethod
    def consecutive(cls, ranks: int) -> ContextGroup:
        """This process's group where all processes fall into groups of `ranks` neighbours; every process calls it.

        Raises: ParallelError as above, or if `ranks` does not divide the number of processes.
        """
        everyone = cls()
        if everyone.ranks % ranks:
            raise ParallelError(
                f"{everyone.ranks} processes cannot read in groups of {ranks}. Choose a number that divides them "
                "(run.context_parallel, run.devices)."
            )
        # Each process takes part in the making of every group, its own or not.
        groups = [dist.new_group(list(range(first, first + ranks))) for first in range(0, everyone.ranks, ranks)]
        mine = groups[everyone.rank // ranks]
        assert isinstance(mine, dist.ProcessGroup)
        return cls(mine)

    def span(self, length: int, *, shortest: int = 1) -> slice:
        """This rank's stretch of a sequence of `length`.

        Raises: ParallelError, on every rank alike, if some rank would have fewer than `shortest` positions.
        """
        if length // self.ranks < shortest:
            raise ParallelError(
                f"A sequence of {length:,} positions cannot be split over {self.ranks} processes: each needs at least "
                f"{shortest}. Take a longer window or fewer processes (run.context_parallel)."
            )
        return spans(length, self.ranks)[self.rank]

    def take(self, tensor: Tensor, *, dim: int = 1, shortest: int = 1) -> Tensor:
        """This rank's part of a tensor that every rank holds whole; a view. Raises as `span`."""
        span = self.span(tensor.shape[dim], shortest=shortest)
        return tensor.narrow(dim, span.start, span.stop - span.start)

    def join(self, part: Tensor, length: int, *, dim: int = 1) -> Tensor:
        """The whole of what every rank holds a part of, on every rank; no gradient passes.

        length: of the whole along `dim`. Meant for results; activations need never be whole anywhere.
        """
        longest = -(-length // self.ranks)
        missing = longest - part.shape[dim]
        filler = part.new_zeros(*part.shape[:dim], missing, *part.shape[dim + 1 :])
        pieces = self.gather(torch.cat([part.detach(), filler], dim=dim))
        sizes = [span.stop - span.start for span in spans(length, self.ranks)]
        return torch.cat([piece.narrow(dim, 0, size) for piece, size in zip(pieces, sizes, strict=True)], dim=dim)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, in rank order; equal shapes everywhere."""
        tensor = tensor.contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.ranks)]
        dist.all_gather(found, tensor, group=self.group)
        return found

    def processed_before(self, *, reverse: bool) -> list[int]:
        """Ranks that are read before this one, in reading order."""
        return list(range(self.ranks - 1, self.rank, -1)) if reverse else list(range(self.rank))

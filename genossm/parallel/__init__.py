"""One sequence over several processes: context parallelism for training and inference."""

from __future__ import annotations

from genossm.parallel.context import context_parallel, join_context, shortest_part, split_context
from genossm.parallel.group import ContextGroup, spans
from genossm.parallel.processes import agreed, is_first, largest, process_count, summed, whole
from genossm.parallel.sharding import gather_weights, release_weights, shard, to_be_saved

__all__ = [
    "ContextGroup",
    "agreed",
    "context_parallel",
    "gather_weights",
    "is_first",
    "join_context",
    "largest",
    "process_count",
    "release_weights",
    "shard",
    "shortest_part",
    "spans",
    "split_context",
    "summed",
    "to_be_saved",
    "whole",
]

"""One sequence over several processes: context parallelism for training and inference."""

from __future__ import annotations

from genossm.parallel.context import context_parallel, join_context, shortest_part, split_context
from genossm.parallel.group import ContextGroup, spans
from genossm.parallel.processes import agreed, process_count, process_rank, total, whole

__all__ = [
    "ContextGroup",
    "agreed",
    "context_parallel",
    "join_context",
    "process_count",
    "process_rank",
    "shortest_part",
    "spans",
    "split_context",
    "total",
    "whole",
]

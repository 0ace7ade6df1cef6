"""One sequence over several processes: context parallelism for training and inference."""

from __future__ import annotations

from genossm.parallel.context import context_parallel, join_context, shortest_part, split_context
from genossm.parallel.group import ContextGroup, spans

__all__ = ["ContextGroup", "context_parallel", "join_context", "shortest_part", "spans", "split_context"]

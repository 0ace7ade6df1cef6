"""What `evaluate context` asks of whatever it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genossm.evaluation.bases_methods import Scores
from genossm.sequence.interval import Interval


@dataclass(frozen=True)
class ContextMethod:
    """What is judged.   score: ln p of the bases of a region from windows of a context, and which are scored."""

    name: str
    objective: str
    details: Mapping[str, Any]
    score: Callable[[Interval, int], Scores]

"""What a score depends on, beside model and reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from genossm.core.errors import UsageError
from genossm.variants.methods import METHODS, methods_for, parse_methods

DEFAULT_CONTEXT = 8192
DEFAULT_HORIZON = 512

Strand = Literal["+", "-"]


@dataclass(frozen=True)
class ScoringOptions:
    """What a score depends on, beside model and reference.

    context: bases of a window, a multiple of 4.   horizon: letters that a causal model compares from the first
    difference on, at most context / 4; None is context / 4; other methods have none.   both_strands: the mean of both
    strands instead of the plus strand alone.   methods: by name; empty for that of the model's own objective.
    Raises: UsageError for values out of range.
    """

    context: int = DEFAULT_CONTEXT
    horizon: int | None = DEFAULT_HORIZON
    both_strands: bool = False
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.context < 8 or self.context % 4:
            raise UsageError(f"A context of {self.context} bases is not possible; wanted a multiple of 4, at least 8.")
        if self.horizon is not None and self.horizon < 1:
            raise UsageError(f"A horizon of {self.horizon} letters is not possible; wanted at least 1, or full.")
        object.__setattr__(self, "methods", parse_methods(self.methods))

    @property
    def longest(self) -> int:
        """Letters that are compared at most."""
        quarter = self.context // 4
        return quarter if self.horizon is None else min(self.horizon, quarter)

    @property
    def strands(self) -> tuple[Strand, ...]:
        return ("+", "-") if self.both_strands else ("+",)

    @property
    def has_horizon(self) -> bool:
        """Whether one of the methods looks at the horizon."""
        return any(METHODS[name].has_horizon for name in self.methods)

    def of_model(self, objective: str, *, equivariant: bool) -> ScoringOptions:
        """The same with the methods named; a model that reads both strands alike always gives both.

        Raises: MethodError for a method that the model does not give.
        """
        return replace(
            self, methods=methods_for(objective, self.methods), both_strands=self.both_strands or equivariant
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: methods by name, and the horizon only where there is one."""
        horizon = {"horizon": self.longest} if self.has_horizon else {}
        return {
            "methods": list(self.methods),
            "context": self.context,
            **horizon,
            "both_strands": self.both_strands,
        }

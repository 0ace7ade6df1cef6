"""What a score depends on, beside model and reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from typing import Any, Literal

from genossm.core.errors import UsageError
from genossm.variants.methods import METHODS, Method, methods_for, parse_methods

DEFAULT_CONTEXT = 8192
DEFAULT_HORIZON = 512
DEFAULT_NEIGHBOURHOOD = 1024
NEIGHBOURHOOD_GRID = 256
"""Neighbourhoods begin and end on this grid, counted from a window's start: so neighbours share their states."""

_USUAL_CONTIG = 1 << 26

Strand = Literal["+", "-"]


@dataclass(frozen=True)
class ScoringOptions:
    """What a score depends on, beside model and reference.

    context: bases of a window, a multiple of 4; None is the whole contig.   horizon: letters that a causal model
    compares from the first difference on, at most context / 4; None is context / 4; other methods have none.
    both_strands: the mean of both strands instead of the plus strand alone.   methods: by name; empty for that of the
    model's own objective.
    neighbourhood: bases on either side of what changes that a masked model, and embedding distances and heads of any
    model, read anew, in windows that are much longer; the rest is known from one pass over the reference.
    exact: they read all of every window anew.
    heads: by name; names among `methods` that are none go here. With a head comes the model's own ratio, a part of what
    the head sees.
    Raises: UsageError for values out of range.
    """

    context: int | None = DEFAULT_CONTEXT
    horizon: int | None = DEFAULT_HORIZON
    both_strands: bool = False
    methods: tuple[str, ...] = ()
    neighbourhood: int = DEFAULT_NEIGHBOURHOOD
    exact: bool = False
    heads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("context", "horizon", "neighbourhood"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.context is not None and (self.context < 8 or self.context % 4):
            raise UsageError(f"A context of {self.context} bases is not possible; wanted a multiple of 4, at least 8.")
        if self.horizon is not None and self.horizon < 1:
            raise UsageError(f"A horizon of {self.horizon} letters is not possible; wanted at least 1, or full.")
        if self.neighbourhood < 1:
            raise UsageError(f"A neighbourhood of {self.neighbourhood} bases is not possible; wanted at least 1.")
        methods, heads = parse_methods((*self.methods, *self.heads))
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "heads", heads)

    @property
    def usual_window(self) -> int:
        """Bases of a window that is not cut short; of contigs, which may be of any length, an arbitrary number."""
        return _USUAL_CONTIG if self.context is None else self.context

    @property
    def longest(self) -> int:
        """Letters that are compared at most, in windows of the usual length."""
        return self.longest_in(self.usual_window)

    def longest_in(self, window: int) -> int:
        """Letters that are compared at most in a window; the contig's ends, which cut it short, do not count."""
        quarter = max(1, (window if self.context is None else self.context) // 4)
        return quarter if self.horizon is None else min(self.horizon, quarter)

    @property
    def context_text(self) -> str:
        """As the command line has it."""
        return "whole" if self.context is None else str(self.context)

    @property
    def horizon_text(self) -> str:
        """As a header has it: letters, or `full` where that depends on the contig."""
        return "full" if self.context is None and self.horizon is None else str(self.longest)

    @property
    def strands(self) -> tuple[Strand, ...]:
        return ("+", "-") if self.both_strands else ("+",)

    @property
    def has_horizon(self) -> bool:
        """Whether one of the methods looks at the horizon."""
        return any(METHODS[name].has_horizon for name in self.methods)

    @property
    def has_neighbourhood(self) -> bool:
        """Whether one of the methods reads windows of a whole context as a reference and neighbourhoods."""
        return any(self.neighbours(METHODS[name]) for name in self.methods)

    def neighbours(self, method: Method) -> bool:
        """Whether a method reads windows of a whole context as a reference and neighbourhoods."""
        return method.has_neighbourhood and self.splits(self.usual_window, method.flank)

    def splits(self, window: int, flank: int = 0) -> bool:
        """Whether a window of that length is long enough for neighbourhoods to be worth a pass over the reference.

        flank: bases on either side that a neighbourhood has at least.
        The rule looks at the window alone: what else a file asks in it may not decide how an allele is scored.
        """
        return not self.exact and window >= 4 * (2 * max(self.neighbourhood, flank) + NEIGHBOURHOOD_GRID)

    def of_model(self, objective: str, *, equivariant: bool) -> ScoringOptions:
        """The same with the methods named; a model that reads both strands alike always gives both.

        Raises: MethodError for a method that the model does not give.
        """
        methods = methods_for(objective, self.methods)
        own = methods_for(objective, ())
        if self.heads and not set(own) & set(methods):
            methods = (*own, *methods)
        return replace(self, methods=methods, both_strands=self.both_strands or equivariant)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: methods by name, and horizon and neighbourhood only where there is one."""
        compared = self.horizon_text
        horizon = {"horizon": int(compared) if compared.isdigit() else compared} if self.has_horizon else {}
        neighbourhood = {"neighbourhood": self.neighbourhood} if self.has_neighbourhood else {}
        heads = {"heads": list(self.heads)} if self.heads else {}
        return {
            "methods": list(self.methods),
            **heads,
            "context": self.context or "whole",
            **horizon,
            **neighbourhood,
            "both_strands": self.both_strands,
        }


def _whole(name: str, value: int | None) -> int | None:
    """A number of bases as int, of whatever integer type it is."""
    try:
        return None if value is None else index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}; wanted a whole number, as in {name}=1024.") from None

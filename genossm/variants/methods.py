"""Ways to score: what each asks of a model, and the fields that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from genossm.core.errors import MethodError, UsageError

MASKED_FLANK = 8
"""Bases on either side of a change of length that a masked model is asked for."""
EMBEDDING_FLANK = 768
"""Bases on either side of an allele whose hidden states are averaged with its own."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NATS = "nats; ALT minus REF; positive: ALT likelier"


@dataclass(frozen=True)
class Tag:
    """An INFO field with one number an ALT allele."""

    name: str
    description: str

    def info_line(self) -> str:
        """Its definition in a VCF header."""
        return f'##INFO=<ID={self.name},Number=A,Type=Float,Description="{self.description}">'


@dataclass(frozen=True)
class Method:
    """label: the name as a header gives it.   objectives: of models that give it.
    facts: what a header says of it beside its tags, by name.   has_horizon: whether `horizon` means anything to it.
    has_neighbourhood: whether it reads neighbourhoods of what changes in place of long windows, with `flank` bases on
    either side at least.
    """

    name: str
    label: str
    objectives: tuple[str, ...]
    tags: tuple[Tag, ...]
    facts: dict[str, str] = field(hash=False)
    has_horizon: bool = False
    has_neighbourhood: bool = False
    flank: int = 0


def _ratio(kind: str) -> Tag:
    return Tag(
        "GENOSSM_LLR",
        f"Log-likelihood ratio of ALT against REF by a {kind} model, in nats (natural logarithm); "
        "positive: the model finds ALT likelier",
    )


def _distances(suffix: str, where: str) -> tuple[Tag, Tag]:
    between = f"between the mean hidden states over {where} with ALT and with REF"
    return (
        Tag(f"GENOSSM_EMB_{suffix}L2", f"Euclidean distance {between}, in their own unit; 0: no difference"),
        Tag(f"GENOSSM_EMB_{suffix}COS", f"1 - cosine {between}, without unit; 0: the same direction"),
    )


LLR = Method("llr", "llr (causal)", ("causal",), (_ratio("causal"),), {"unit": _NATS}, has_horizon=True)
MLM = Method(
    "mlm",
    "mlm (masked)",
    ("masked",),
    (_ratio("masked"),),
    {
        "unit": _NATS,
        "masked": "substitutions: all REF positions in one pass; changes of length: on either haplotype the "
        f"{MASKED_FLANK} bases on either side of all equivalent placements, one a pass",
    },
    has_neighbourhood=True,
)
EMBEDDING = Method(
    "embedding",
    "embedding",
    ("causal", "masked"),
    _distances("", f"the allele and {EMBEDDING_FLANK} bases on either side")
    + _distances("WINDOW_", "the whole window"),
    {
        "central": f"{2 * EMBEDDING_FLANK} bases, {EMBEDDING_FLANK} on either side of all equivalent placements, and "
        "what stands between them; clipped to the window"
    },
    has_neighbourhood=True,
    flank=EMBEDDING_FLANK,
)
METHODS: dict[str, Method] = {method.name: method for method in (LLR, MLM, EMBEDDING)}


def parse_methods(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of methods, and of heads, each text one or several with commas between; every name once.

    Methods come in the order of `METHODS`, heads in that in which they were named; whether the model has a head of that
    name is seen where it is loaded.
    Raises: UsageError for a name that neither can have.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if not is_method_name(name):
            raise UsageError(f"{name!r} is no method; wanted one or several of {', '.join(METHODS)}, or a head's name.")
    heads = dict.fromkeys(name for name in names if name not in METHODS)
    return tuple(name for name in METHODS if name in names), tuple(heads)


def is_method_name(name: str) -> bool:
    """Whether a method or a head may be called so."""
    return bool(_NAME.fullmatch(name))


def methods_for(objective: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """`names`, or, where there are none, the method of the model's own objective.

    Raises: MethodError for a method that a model with this objective does not give.
    """
    given = [method.name for method in METHODS.values() if objective in method.objectives]
    refused = [name for name in names if name not in given]
    if refused:
        wanted = " or ".join(METHODS[refused[0]].objectives)
        raise MethodError(
            f"The method {refused[0]} needs a {wanted} model; this one is {objective} and gives {', '.join(given)}."
        )
    return names or (given[0],)


def tags_of(names: Iterable[str]) -> tuple[Tag, ...]:
    """The INFO fields of methods, in their order."""
    return tuple(tag for name in names for tag in METHODS[name].tags)

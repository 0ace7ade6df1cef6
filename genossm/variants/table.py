"""Scores as a table of text, for single variants on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from genossm.core.errors import ReferenceMismatchError
from genossm.variants.locate import ScoredAllele
from genossm.variants.methods import Tag
from genossm.variants.status import STATUS_MEANINGS, Status
from genossm.variants.vcf_header import STATUS, format_score, values_of


def table_lines(scored: Iterable[ScoredAllele], tags: tuple[Tag, ...], *, check_ref: str = "w") -> Iterator[str]:
    """Tab-separated lines: a head, then variant, the methods' numbers and status of each.

    check_ref: "e" stops at a REF that differs from the reference.
    Raises: ReferenceMismatchError under "e".
    """
    yield "\t".join(("variant", *(tag.name for tag in tags), STATUS))
    for one in scored:
        if one.status is Status.REF_MISMATCH and check_ref == "e":
            raise ReferenceMismatchError(
                f"{one.variant}: {STATUS_MEANINGS[one.status]}. Check the assembly, or pass --check-ref w to keep it "
                "unscored."
            )
        yield "\t".join((str(one.variant), *map(format_score, values_of(one, tags)), one.status))

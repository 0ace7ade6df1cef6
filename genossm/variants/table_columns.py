"""Which columns of a table name its variants, and the alleles that they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genossm.core.errors import InputFileError, UsageError, VariantError
from genossm.core.strict import nearest
from genossm.sequence import Variant
from genossm.variants.locate import Allele

KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "contig": ("contig", "chrom", "#chrom", "chromosome", "chr", "seqnames"),
    "pos": ("pos", "pos1", "position"),
    "ref": ("ref", "reference_allele", "ref_allele"),
    "alt": ("alt", "alternative_allele", "alt_allele"),
    "variant": ("variant",),
}
"""Names that are recognised, in any case. Positions are 1-based, as in VCF."""
_FOUR = ("contig", "pos", "ref", "alt")


@dataclass(frozen=True)
class VariantColumns:
    """Names of the columns to read: contig, pos, ref and alt, or `variant` alone, whose text says all four."""

    names: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        return len(self.names) == 1

    def alleles(self, columns: Sequence[Sequence[Any]], places: Iterable[str]) -> Iterator[Allele]:
        """One allele a row.   columns: the values of `names`.   places: of each row, for messages.

        Raises: InputFileError for a position that is no whole number, or a variant that cannot be read.
        """
        for place, row in zip(places, zip(*columns, strict=True)):
            yield _from_text(row[0], place) if self.is_text else _from_four(row, place)


def find_columns(present: Sequence[str], given: Mapping[str, str] | None = None, *, name: str) -> VariantColumns:
    """The columns that name the variants of a table.

    present: the table's columns.   given: of "contig", "pos", "ref", "alt", "variant" to the column that is it, for
    names that are not recognised; see `KNOWN_NAMES`.   name: of the table, for messages.
    Four columns go before a column `variant`, where a table has both.
    Raises: UsageError for a key or column that is not there; InputFileError if columns are missing or ambiguous.
    """
    given = dict(given or {})
    for key, column in given.items():
        if key not in KNOWN_NAMES:
            raise UsageError(f"{key!r} is no part of a variant; wanted {', '.join(KNOWN_NAMES)}.")
        if column not in present:
            close = nearest(column, present)
            hint = f"Did you mean {close!r}?" if close else f"There are {', '.join(present)}."
            raise UsageError(f"{name} has no column {column!r}. {hint}")
    found = {key: column for key in KNOWN_NAMES if (column := given.get(key) or _recognise(key, present, name))}
    if "variant" not in given and all(key in found for key in _FOUR):
        return VariantColumns(tuple(found[key] for key in _FOUR))
    if "variant" in found:
        return VariantColumns((found["variant"],))
    missing = ", ".join(key for key in _FOUR if key not in found)
    raise InputFileError(
        f"{name} has no column for {missing}, and none called variant; it has {', '.join(present)}. Say which is "
        "which: --columns contig=CHR,pos=BP,ref=A2,alt=A1."
    )


def parse_columns(text: str | None) -> dict[str, str]:
    """`contig=CHR,pos=BP` as a mapping. Raises: UsageError for a part without `=`."""
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise UsageError(f"Cannot read --columns {text}; wanted as in contig=CHR,pos=BP,ref=A2,alt=A1.")
    return {key.strip(): column.strip() for key, _, column in pairs}


def _recognise(key: str, present: Sequence[str], name: str) -> str | None:
    known = [column for column in present if column.strip().lower() in KNOWN_NAMES[key]]
    if len(known) > 1:
        raise InputFileError(
            f"{name} has {len(known)} columns for {key}: {', '.join(known)}. Say which: --columns {key}={known[0]}."
        )
    return known[0] if known else None


def _from_four(row: Sequence[Any], place: str) -> Allele:
    contig, position, ref, alt = row
    # A dot is VCF's word for no ALT allele.
    return Allele(
        _text(contig), _position(position, place), _text(ref), None if _text(alt) in ("", ".") else _text(alt)
    )


def _from_text(value: Any, place: str) -> Allele:
    try:
        variant = Variant.parse(_text(value))
    except VariantError as error:
        raise InputFileError(f"{place}: {error}") from error
    return Allele(variant.contig, variant.pos1, variant.ref, variant.alt)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # A column of contigs such as 20 comes as a number from typed tables.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _position(value: Any, place: str) -> int:
    text = _text(value)
    if not (text.isascii() and text.isdigit()):
        raise InputFileError(f"{place}: the position is {text!r}; wanted a whole number, 1 for a contig's first base.")
    return int(text)

"""Numbers and words of INFO that belong to one ALT allele."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genossm.core.errors import InputFileError
from genossm.variants.vcf_input import Record


def info_fields(record: Record) -> dict[str, str]:
    """INFO as key to text; a flag has an empty text."""
    if record.info in (b".", b""):
        return {}
    pairs = (entry.partition("=") for entry in record.info.decode("utf-8", errors="surrogateescape").split(";"))
    return {key: value for key, _, value in pairs}


def allele_text(record: Record, fields: dict[str, str], key: str, number: int) -> str | None:
    """A field's value for ALT allele `number`: one of as many as there are alleles, or the only one; None for none.

    Raises: InputFileError for another count of values.
    """
    values = fields.get(key, ".").split(",")
    if len(values) not in (1, len(record.alts)):
        raise InputFileError(
            f"{record.place}: {key} has {len(values)} values for {len(record.alts)} ALT alleles; wanted one an "
            "allele, or one for all."
        )
    text = values[number if len(values) > 1 else 0]
    return None if text in (".", "") else text


def allele_covariates(record: Record, names: Sequence[str]) -> list[Mapping[str, object] | None]:
    """What INFO says under these names of each ALT allele, or of the record if it has none."""
    alts = max(1, len(record.alts))
    if not names or not record.alts:
        return [None] * alts
    fields = info_fields(record)
    return [{name: allele_text(record, fields, name, number) for name in names} for number in range(alts)]


def allele_number(record: Record, fields: dict[str, str], key: str, number: int) -> float | None:
    """`allele_text` as a number. Raises: InputFileError if it is none."""
    text = allele_text(record, fields, key, number)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise InputFileError(f"{record.place}: {key} is {text!r}; wanted a number.") from None

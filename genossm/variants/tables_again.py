"""Tables of alleles from a VCF that is scored already."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from genossm.core.errors import InputFileError
from genossm.variants.allele_tables import alleles_of, open_tables
from genossm.variants.info_fields import info_fields
from genossm.variants.naming import Naming
from genossm.variants.vcf_header import STATUS, facts_in
from genossm.variants.vcf_input import Record

_NUMBERS = re.compile(rb"##INFO=<ID=([^,>]+),Number=A,Type=Float")


@contextmanager
def tables_again(
    header: Sequence[bytes], naming: Naming, tsv: Path | None, parquet: Path | None, *, force: bool
) -> Iterator[Callable[[Record], None]]:
    """Tables as scoring writes them, from what the records say: a function that takes these in their order.

    Raises: InputFileError for a header without scores under this name; OutputExistsError.
    """
    if tsv is None and parquet is None:
        yield lambda record: None  # noqa: ARG005
        return
    header, status = tuple(header), naming.field(STATUS)
    ours = naming.own_fields(header)
    if not ours:
        raise InputFileError(f"The pieces hold no INFO/{naming.tag}_…; pass the --tag that they were scored with.")
    found = (match[1] for line in header if (match := _NUMBERS.match(line)))
    names = [name.decode() for name in found if name in ours]
    with open_tables(tsv, parquet, names, facts_in(header, naming), force=force) as tables:

        def add(record: Record) -> None:
            fields, count = info_fields(record), len(alleles_of(record.columns[4]))
            columns = [fields[name].split(",") if name in fields else ["."] * count for name in names]
            for table in tables:
                table.add(record.columns, fields[status].split(","), [list(one) for one in zip(*columns)])

        yield add

"""Tables beside a scored VCF: one row an ALT allele, with the numbers as the VCF has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pysam

from genossm.core.atomic import atomic_file
from genossm.variants.table_files import parquet, parquet_facts

PLACES = ("contig", "pos", "ref", "alt", "id", "status")
"""Columns before the numbers. `pos` counts from 1, as in the VCF."""
# Rows that go into a Parquet file together: of a number of their own, so that neither blocks nor pieces show.
_GROUP = 1 << 16


class AlleleTable(Protocol):
    """Takes records in their order."""

    def add(self, columns: Sequence[bytes], statuses: Sequence[str], numbers: Sequence[Sequence[str]]) -> None:
        """A record: the columns of its line, and of each ALT allele the status and the numbers as the VCF writes them,
        a dot for none.
        """
        ...


@contextmanager
def open_tables(
    tsv: Path | None, table: Path | None, names: Sequence[str], facts: Mapping[str, object], *, force: bool
) -> Iterator[list[AlleleTable]]:
    """A TSV file, a Parquet file, both or neither; whole ones when the block ends well, none when it does not.

    names: of the numbers.   facts: where they come from; comment lines of the one, metadata of the other.
    Raises: OutputExistsError; MissingDependencyError for Parquet without pyarrow.
    """
    with ExitStack() as stack:
        tables: list[AlleleTable] = []
        if tsv is not None:
            temporary = stack.enter_context(atomic_file(tsv, force=force))
            opener = _Packed if str(tsv).endswith((".gz", ".bgz")) else partial(open, mode="wb")
            tables.append(_Text(stack.enter_context(opener(temporary)), names, facts))
        if table is not None:
            temporary = stack.enter_context(atomic_file(table, force=force))
            tables.append(stack.enter_context(_parquet_table(temporary, names, facts)))
        yield tables


def alleles_of(alts: bytes) -> list[bytes]:
    """ALT alleles, or the dot of a record without any."""
    return alts.split(b",")


class _Packed:
    """A bgzip file, as far as a table needs one."""

    def __init__(self, path: Path) -> None:
        self._file = pysam.BGZFile(str(path), "wb", None)

    def __enter__(self) -> Any:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Text:
    def __init__(self, file: BinaryIO, names: Sequence[str], facts: Mapping[str, object]) -> None:
        self._file = file
        head = [*(f"##genossm_{key}={value}" for key, value in facts.items()), "\t".join((*PLACES, *names))]
        file.write("".join(f"{line}\n" for line in head).encode("utf-8", errors="surrogateescape"))

    def add(self, columns: Sequence[bytes], statuses: Sequence[str], numbers: Sequence[Sequence[str]]) -> None:
        contig, pos, name, ref, alts = columns[:5]
        for alt, status, values in zip(alleles_of(alts), statuses, numbers, strict=True):
            # Nothing between tabs is what readers of tables take for a missing number.
            texts = ("" if value == "." else value for value in values)
            words = (contig, pos, ref, alt, name, status.encode(), *(text.encode() for text in texts))
            self._file.write(b"\t".join(words) + b"\n")


class _Parquet:
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer, self._schema = writer, schema
        self._rows: list[tuple[Any, ...]] = []

    def add(self, columns: Sequence[bytes], statuses: Sequence[str], numbers: Sequence[Sequence[str]]) -> None:
        contig, pos, name, ref, alts = (column.decode("utf-8", errors="backslashreplace") for column in columns[:5])
        for alt, status, values in zip(alts.split(","), statuses, numbers, strict=True):
            places = (contig, int(pos), ref, _or_none(alt), _or_none(name), status)
            self._rows.append((*places, *(None if value == "." else float(value) for value in values)))
        while len(self._rows) >= _GROUP:
            self._write(self._rows[:_GROUP])
            del self._rows[:_GROUP]

    def finish(self) -> None:
        if self._rows:
            self._write(self._rows)

    def _write(self, rows: Iterable[tuple[Any, ...]]) -> None:
        import pyarrow as pa

        columns = [pa.array(values, field.type) for values, field in zip(zip(*rows), self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))


def _or_none(text: str) -> str | None:
    return None if text == "." else text


@contextmanager
def _parquet_table(path: Path, names: Sequence[str], facts: Mapping[str, object]) -> Iterator[_Parquet]:
    writer_of = parquet().ParquetWriter
    import pyarrow as pa

    kinds = {"pos": pa.int64()}
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in PLACES]
    fields += [pa.field(name, pa.float64()) for name in names]
    schema = pa.schema(fields, metadata=parquet_facts({key: str(value) for key, value in facts.items()}))
    with writer_of(str(path), schema) as writer:
        yield (table := _Parquet(writer, schema))
        table.finish()

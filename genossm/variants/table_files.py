"""Tables of variants as files: CSV and TSV as text, Parquet through pyarrow; read and written block by block."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, cast

from genossm.core.atomic import atomic_file
from genossm.core.errors import InputFileError, MissingDependencyError, UsageError

_TEXT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_PARQUET = (".parquet", ".pq")

Numbers = Sequence[float | None]


class Block(Protocol):
    """Some rows.   places: of each, for messages."""

    @property
    def places(self) -> Sequence[str]: ...

    def column(self, name: str) -> Sequence[Any]: ...


class TableInput(Protocol):
    """names: of the columns.   blocks: of at most so many rows, in order, once."""

    name: str
    names: list[str]

    def blocks(self, rows: int) -> Iterator[Block]: ...


class TableOutput(Protocol):
    """Takes each block with what is added to it: numbers by column, then a word by column."""

    def write(self, block: Block, numbers: Mapping[str, Numbers], words: Mapping[str, Sequence[str]]) -> None: ...


def table_kind(path: str | Path) -> str:
    """ "," or tab for text, "parquet"; by the name's end. Raises: UsageError if it says none."""
    name = str(path).lower()
    if name.endswith(_PARQUET):
        return "parquet"
    name = name.removesuffix(".gz").removesuffix(".bgz")
    for suffix, separator in _TEXT.items():
        if name.endswith(suffix):
            return separator
    raise UsageError(
        f"Cannot tell what table {path} is by its name; wanted {', '.join(_TEXT)} (these may end in .gz), or .parquet."
    )


@contextmanager
def open_table(path: str | Path) -> Iterator[TableInput]:
    """Open a table for one reading. Raises: InputFileError if it is missing, empty or damaged; UsageError."""
    kind = table_kind(path)
    if not Path(path).is_file():
        raise InputFileError(f"No table at {path}. Check the path.")
    with ExitStack() as stack:
        yield _open_parquet(stack, path) if kind == "parquet" else _open_text(stack, path, kind)


@contextmanager
def table_output(
    target: str | Path,
    source: TableInput,
    *,
    dropped: Sequence[str] = (),
    numbers: Sequence[str],
    words: Sequence[str],
    facts: Mapping[str, Any],
    force: bool,
) -> Iterator[TableOutput]:
    """A whole table at `target` when the block ends well, nothing when it does not.

    source: the table whose rows are written again, with its columns but those `dropped`, then the columns `numbers`
    and `words`.
    facts: kept in a Parquet file's metadata under "genossm"; text has no place for them.
    Raises: UsageError if input and output are not both text or both Parquet; OutputExistsError.
    """
    kind = table_kind(target)
    if (kind == "parquet") != isinstance(source, _ParquetInput):
        raise UsageError(
            f"{source.name} and {target} are tables of different kinds. Values would change in between: text knows no "
            "types. Choose an output of the input's kind."
        )
    kept = [name for name in source.names if name not in dropped]
    with atomic_file(target, force=force) as temporary, ExitStack() as stack:
        if isinstance(source, _ParquetInput):
            yield stack.enter_context(_parquet_output(temporary, source, kept, (numbers, words), facts))
        else:
            file = stack.enter_context(_text_file(temporary, "wt", zipped=str(target).endswith((".gz", ".bgz"))))
            yield _TextOutput(file, kind, kept, (*numbers, *words))


@contextmanager
def _text_file(path: Path, mode: str, *, zipped: bool) -> Iterator[IO[str]]:
    # newline="" leaves line ends inside of quoted values alone.
    opener = gzip.open if zipped else open
    with opener(path, mode, encoding="utf-8", newline="") as file:
        yield cast(IO[str], file)


@dataclass
class _TextBlock:
    names: Mapping[str, int]
    rows: list[list[str]]
    places: list[str]

    def column(self, name: str) -> list[str]:
        index = self.names[name]
        return [row[index] for row in self.rows]


class _TextInput:
    def __init__(self, name: str, file: IO[str], separator: str) -> None:
        self.name = name
        # Strict: a quote that is never closed would swallow the rest of the file as one value.
        self._reader = csv.reader(file, delimiter=separator, strict=True)
        self.names = self._first()

    def _first(self) -> list[str]:
        with _readable_text(self.name, self._reader):
            names = next(self._reader, [])
        if not names:
            raise InputFileError(f"{self.name} is empty; wanted a line with the names of the columns.")
        names[0] = names[0].removeprefix("\ufeff")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputFileError(f"{self.name} has two columns called {twice[0]!r}. Rename one.")
        return names

    def blocks(self, rows: int) -> Iterator[_TextBlock]:
        index = {name: number for number, name in enumerate(self.names)}
        lines = self._lines()
        while chunk := list(islice(lines, rows)):
            yield _TextBlock(index, [row for row, _ in chunk], [place for _, place in chunk])

    def _lines(self) -> Iterator[tuple[list[str], str]]:
        while True:
            with _readable_text(self.name, self._reader):
                row = next(self._reader, None)
            if row is None:
                return
            place = f"{self.name}, line {self._reader.line_num}"
            if len(row) != len(self.names):
                raise InputFileError(
                    f"{place} has {len(row)} values, wanted {len(self.names)}, one a column. Mend the line."
                )
            yield row, place


@contextmanager
def _readable_text(name: str, reader: Any) -> Iterator[None]:
    try:
        yield
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise InputFileError(f"{name}, after line {reader.line_num}: {error}. Mend or fetch the file.") from error


class _TextOutput:
    def __init__(self, file: IO[str], separator: str, kept: Sequence[str], added: Sequence[str]) -> None:
        self._writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        self._kept = kept
        self._writer.writerow((*kept, *added))

    def write(self, block: Block, numbers: Mapping[str, Numbers], words: Mapping[str, Sequence[str]]) -> None:
        added = [[_number(value) for value in column] for column in numbers.values()]
        columns = (*(block.column(name) for name in self._kept), *added, *words.values())
        self._writer.writerows(zip(*columns, strict=True))


def _number(value: float | None) -> str:
    # Nothing between separators is what readers of tables take for a missing number.
    return "" if value is None else f"{float(f'{value:.6g}') + 0.0:.6g}"


def _open_text(stack: ExitStack, path: str | Path, separator: str) -> _TextInput:
    zipped = str(path).lower().endswith((".gz", ".bgz"))
    return _TextInput(str(path), stack.enter_context(_text_file(Path(path), "rt", zipped=zipped)), separator)


@dataclass
class _ParquetBlock:
    batch: Any
    name: str
    first: int

    @property
    def places(self) -> list[str]:
        return [f"{self.name}, row {self.first + number + 1}" for number in range(self.batch.num_rows)]

    def column(self, name: str) -> list[Any]:
        return self.batch.column(name).to_pylist()


class _ParquetInput:
    def __init__(self, name: str, file: Any) -> None:
        self.name, self.file = name, file
        self.schema = file.schema_arrow
        self.names: list[str] = list(self.schema.names)

    def blocks(self, rows: int) -> Iterator[_ParquetBlock]:
        done = 0
        for batch in self.file.iter_batches(batch_size=rows):
            yield _ParquetBlock(batch, self.name, done)
            done += batch.num_rows


@contextmanager
def _parquet_output(
    path: Path,
    source: _ParquetInput,
    kept: Sequence[str],
    added: tuple[Sequence[str], Sequence[str]],
    facts: Mapping[str, Any],
) -> Iterator[_ParquetOutput]:
    import pyarrow as pa

    fields = [source.schema.field(name) for name in kept]
    fields += [pa.field(name, kind) for names, kind in zip(added, (pa.float64(), pa.string())) for name in names]
    metadata = {**(source.schema.metadata or {}), **parquet_facts(facts)}
    schema = pa.schema(fields, metadata=metadata)
    with parquet().ParquetWriter(str(path), schema) as writer:
        yield _ParquetOutput(writer, schema, kept)


def parquet_facts(facts: Mapping[str, Any]) -> dict[bytes, bytes]:
    """What a Parquet file's metadata hold of how it was made."""
    return {b"genossm": json.dumps(dict(facts)).encode()}


class _ParquetOutput:
    def __init__(self, writer: Any, schema: Any, kept: Sequence[str]) -> None:
        self._writer, self._schema, self._kept = writer, schema, kept

    def write(self, block: Block, numbers: Mapping[str, Numbers], words: Mapping[str, Sequence[str]]) -> None:
        import pyarrow as pa

        assert isinstance(block, _ParquetBlock)
        columns = [block.batch.column(name) for name in self._kept]
        columns += [pa.array(values, pa.float64()) for values in numbers.values()]
        columns += [pa.array(values, pa.string()) for values in words.values()]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))


def _open_parquet(stack: ExitStack, path: str | Path) -> _ParquetInput:
    pq = parquet()
    import pyarrow as pa

    try:
        return _ParquetInput(str(path), stack.enter_context(pq.ParquetFile(str(path))))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputFileError(f"{path} is no readable Parquet file: {error}.") from error


def parquet() -> Any:
    """pyarrow.parquet. Raises: MissingDependencyError without pyarrow."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Parquet needs pyarrow. Install it with: pip install 'genossm[tables]'") from error
    return pq

"""Tables with named columns: CSV and TSV (plain or gzip), and Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import InputFileError, MissingDependencyError
from genossm.genome.bed import open_text

Columns = Mapping[str, Sequence[object]]


def read_table(path: str | os.PathLike[str]) -> Columns:
    """Every column of a table by name, in the file's order; text for CSV and TSV, typed values for Parquet.

    The suffix decides, without a final .gz: .csv, .parquet, and anything else is split by tabs.
    Raises: InputFileError for a file that is missing, has no row, or a row of another length than the header;
    MissingDependencyError for Parquet without pyarrow.
    """
    path = Path(path)
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if not path.is_file():
        raise InputFileError(f"No table at {path}. Check the path.")
    try:
        columns = _read_parquet(path) if suffix == ".parquet" else _read_text(path, "," if suffix == ".csv" else "\t")
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(f"Cannot read the table {path}: {error}.") from error
    if not columns or not len(next(iter(columns.values()))):
        raise InputFileError(f"{path} has no row; wanted a header and at least one.")
    return columns


def column(columns: Columns, name: str, path: str | os.PathLike[str]) -> Sequence[object]:
    """A column by name. Raises: InputFileError that names the nearest one."""
    if name in columns:
        return columns[name]
    near = get_close_matches(name, columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputFileError(f"{path} has no column {name!r}; it has {', '.join(columns)}.{hint}")


def numbers(columns: Columns, name: str, path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """A column as float32 (rows,); an empty text or NA is NaN. Raises: InputFileError naming the row."""
    values = column(columns, name, path)
    result = np.empty(len(values), np.float32)
    for row, value in enumerate(values):
        try:
            result[row] = np.nan if value in (None, "", "NA", "nan", "NaN") else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise InputFileError(f"{path}, row {row + 1}: {name} is {value!r}; wanted a number or NA.") from None
    return result


def _read_text(path: Path, separator: str) -> Columns:
    with open_text(path) as handle:
        rows = csv.reader(handle, delimiter=separator)
        header = next(rows, [])
        if len(set(header)) != len(header):
            raise InputFileError(f"{path}: two columns have one name; the header is {', '.join(header)}.")
        found: list[list[str]] = []
        for number, row in enumerate(rows, start=1):
            if not row:
                continue
            if len(row) != len(header):
                raise InputFileError(
                    f"{path}, row {number}: {len(row)} columns, wanted {len(header)} as in the header."
                )
            found.append(row)
    return {name: [row[i] for row in found] for i, name in enumerate(header)}


def _read_parquet(path: Path) -> Columns:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading Parquet needs pyarrow. Install it: pip install 'genossm[tables]'"
        ) from error
    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except pyarrow.ArrowException as error:
        raise InputFileError(f"{path} is no Parquet file, or a damaged one ({error}).") from error

"""Alleles of a table or a VCF with what was measured of them: labels and covariates by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError, InputFileError
from genossm.data.table import Columns, column, numbers, read_table
from genossm.genome.bed import open_text

_USUAL = {
    "contig": ("contig", "chrom", "#chrom", "chromosome", "chr"),
    "pos": ("pos", "pos1", "position"),
    "ref": ("ref", "reference_allele", "ref_allele"),
    "alt": ("alt", "alternative_allele", "alt_allele"),
}
_MISSING = ("", ".", "NA")


@dataclass(frozen=True, eq=False)
class VariantRows:
    """One ALT allele a row, as the file writes it, plain sequence or not; `alts` is None where a record has none.

    labels: (rows, labels), covariates: (rows, covariates), float32, NaN where unknown.   places: of each row in its
    file, for messages.   pos1: 1-based, as in VCF.
    """

    contigs: tuple[str, ...]
    pos1: tuple[int, ...]
    refs: tuple[str, ...]
    alts: tuple[str | None, ...]
    places: tuple[str, ...]
    labels: NDArray[np.float32]
    covariates: NDArray[np.float32]
    label_names: tuple[str, ...] = ()
    covariate_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.contigs)

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> VariantRows:
        """Some of the rows, in the order given: a fold, or a part to train on."""
        chosen = [int(row) for row in rows]
        return replace(
            self,
            contigs=tuple(self.contigs[row] for row in chosen),
            pos1=tuple(self.pos1[row] for row in chosen),
            refs=tuple(self.refs[row] for row in chosen),
            alts=tuple(self.alts[row] for row in chosen),
            places=tuple(self.places[row] for row in chosen),
            labels=self.labels[chosen],
            covariates=self.covariates[chosen],
        )


def read_variant_rows(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] = (),
    covariates: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> VariantRows:
    """Read a table (TSV, CSV, Parquet; positions 1-based) or a VCF (plain, gzip, bgzip).

    labels, covariates: columns of the table, or INFO keys of the VCF; a key with one value an ALT allele gives each its
    own. Empty, `.`, NA are unknown.   columns: of "contig", "pos", "ref", "alt" to the table's column, where its name
    is not a usual one (chrom, POS, ...).
    Raises: InputFileError, naming line or row, for what cannot be read; ConfigError for a wrong key of `columns`.
    """
    path = Path(path)
    wanted = (*labels, *covariates)
    if path.name.removesuffix(".gz").removesuffix(".bgz").endswith(".vcf"):
        found, values = _from_vcf(path, wanted)
    else:
        found, values = _from_table(path, wanted, dict(columns or {}))
    if not found:
        raise InputFileError(f"{path} has no variant; wanted at least one.")
    split = len(labels)
    contigs, pos1, refs, alts, places = zip(*found)
    return VariantRows(
        contigs, pos1, refs, alts, places, values[:, :split], values[:, split:], tuple(labels), tuple(covariates)
    )


_Row = tuple[str, int, str, str | None, str]


def _from_table(path: Path, wanted: Sequence[str], given: dict[str, str]) -> tuple[list[_Row], NDArray[np.float32]]:
    columns = read_table(path)
    if strange := sorted(set(given) - set(_USUAL)):
        raise ConfigError(f"{strange[0]!r} is no part of a variant; wanted {', '.join(_USUAL)}.")
    parts = [column(columns, given.get(key) or _usual(columns, key, path), path) for key in _USUAL]
    rows = [
        (_text(contig), _position(pos, f"{path}, row {row}"), _text(ref), _text(alt) or None, f"{path}, row {row}")
        for row, (contig, pos, ref, alt) in enumerate(zip(*parts), start=1)
    ]
    values = [numbers(columns, name, path) for name in wanted]
    return rows, np.stack(values, axis=1) if values else np.empty((len(rows), 0), np.float32)


def _usual(columns: Columns, key: str, path: Path) -> str:
    known = [name for name in columns if name.strip().lower() in _USUAL[key]]
    if len(known) != 1:
        got = f"{len(known)} columns" if known else "no column"
        raise InputFileError(
            f"{path} has {got} for the {key} of a variant ({', '.join(columns)}). Say which, as in "
            f'columns={{"{key}": "NAME"}}.'
        )
    return known[0]


def _text(value: object) -> str:
    # A contig such as 20 comes as a number from typed tables.
    return "" if value is None else str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _position(value: object, place: str) -> int:
    text = _text(value)
    if not (text.isascii() and text.isdigit()):
        raise InputFileError(f"{place}: the position is {text!r}; wanted a whole number, 1 for a contig's first base.")
    return int(text)


def _from_vcf(path: Path, wanted: Sequence[str]) -> tuple[list[_Row], NDArray[np.float32]]:
    rows: list[_Row] = []
    values: list[list[float]] = []
    seen: set[str] = set()
    for place, fields in _vcf_lines(path):
        contig, pos, _, ref, alts = fields[:5]
        info = {key: value for key, _, value in (part.partition("=") for part in fields[7].split(";"))}
        seen.update(info)
        alleles: list[str | None] = [None] if alts == "." else list(alts.split(","))
        for number, alt in enumerate(alleles):
            rows.append((contig, _position(pos, place), ref, alt, place))
            values.append([_of_allele(info, key, number, len(alleles), place) for key in wanted])
    for key in wanted:
        if rows and key not in seen:
            raise InputFileError(f"{path} has no INFO/{key} in any record; it has {', '.join(sorted(seen))}.")
    return rows, np.array(values, np.float32).reshape(len(rows), len(wanted))


def _vcf_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, start=1):
                if line.startswith("#") or not line.strip():
                    continue
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) < 8:
                    raise InputFileError(f"{path}, line {number} has {len(fields)} columns; wanted at least 8.")
                yield f"{path}, line {number}", fields
    except FileNotFoundError:
        raise InputFileError(f"No VCF at {path}. Check the path.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputFileError(f"Cannot read VCF {path}: {error}.") from error


def _of_allele(info: Mapping[str, str], key: str, number: int, alleles: int, place: str) -> float:
    values = info.get(key, "").split(",")
    if len(values) not in (1, alleles):
        raise InputFileError(f"{place}: INFO/{key} has {len(values)} values for {alleles} ALT alleles.")
    text = values[number if len(values) > 1 else 0]
    if text in _MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InputFileError(f"{place}: INFO/{key} is {text!r}; wanted a number.") from None

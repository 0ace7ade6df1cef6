"""A GenBank or EMBL flat file as a source of sequence, read through Biopython.

These formats cannot be read from the middle, so all records are held in memory. Letters have no case in them, so
nothing is soft-masked.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genossm.core.errors import InputFileError
from genossm.genome.fasta_records import require_letters
from genossm.genome.raw import pieces
from genossm.genome.runs import Runs, Survey, survey
from genossm.sequence.tokenizer import translate_into

_NAMES = {"genbank": "GenBank", "embl": "EMBL"}
# What Biopython only warns of, and what means that sequence is missing.
_CUT_OFF = ("Premature end", "Expected sequence length")
_PLACEHOLDERS = ("", ".", "<unknown id>", "<unknown name>", "unknown")


@dataclass(frozen=True)
class _Contig:
    """names: what else the record calls itself: accession, locus.   letters: upper-case ASCII."""

    name: str
    names: frozenset[str]
    circular: bool
    letters: bytes


class FlatFileSource:
    """All records of a GenBank or EMBL file (plain, bgzip or gzip), in memory.

    A contig is called by accession and version, as in the FASTA file of the same record; the accession alone and the
    locus name are aliases unless two records share them. A circular topology is kept.
    Raises: InputFileError if the file is missing, cut off or damaged, or a record has no sequence, or a name twice.
    """

    def __init__(self, path: Path, kind: Literal["genbank", "embl"]) -> None:
        self.path = path
        self.kind = kind
        self._contigs: dict[str, _Contig] = {}
        for contig in _contigs(path, kind):
            if contig.name in self._contigs:
                raise InputFileError(f"{path}: record {contig.name!r} stands there twice. Remove one of them.")
            self._contigs[contig.name] = contig
        if not self._contigs:
            raise InputFileError(f"{path} holds no {_NAMES[kind]} record. Fetch it again.")
        self.lengths: Mapping[str, int] = {name: len(contig.letters) for name, contig in self._contigs.items()}
        self.circular = frozenset(name for name, contig in self._contigs.items() if contig.circular)
        self.aliases: Mapping[str, str] = MappingProxyType(_aliases(self._contigs))
        self._surveyed = cache(self._survey)
        self._closed = False

    def read_letters(self, contig: str, start: int, end: int) -> bytes:
        """Upper-case ASCII letters."""
        if self._closed:
            raise InputFileError(f"{self.path} was closed; open it again.")
        return self._contigs[contig].letters[start:end]

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[letter]` into `out` (end - start,)."""
        translate_into(self.read_letters(contig, start, end), table, out)

    def digest(self, contig: str) -> str:
        """SAM M5: MD5 of the upper-case letters, as hex."""
        return self._surveyed(contig).m5

    def n_runs(self, contig: str) -> Runs:
        """Start and end of every run of N, int64 (runs, 2)."""
        return self._surveyed(contig).n_runs

    def soft_mask(self, contig: str) -> Runs:
        """No run: these formats have no soft-mask."""
        return self._surveyed(contig).soft_mask

    def close(self) -> None:
        """Free the sequences; reading afterwards is an error."""
        self._contigs = {}
        self._closed = True

    def _survey(self, contig: str) -> Survey:
        return survey(self.read_letters(contig, 0, self.lengths[contig]))


def _contigs(path: Path, kind: Literal["genbank", "embl"]) -> list[_Contig]:
    from Bio import BiopythonParserWarning
    from Bio.GenBank.Scanner import EmblScanner, GenBankScanner

    scanner = GenBankScanner() if kind == "genbank" else EmblScanner()
    # Names are ASCII; authors' names in old files are in any encoding.
    text = io.TextIOWrapper(io.BytesIO(b"".join(pieces(path))), encoding="ascii", errors="replace")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BiopythonParserWarning)
        try:
            # Gene annotation is not read: it would take half of the time.
            found = [_contig(record, path) for record in scanner.parse_records(text, do_features=False)]
        except (ValueError, AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
            raise InputFileError(
                f"{path}: this {_NAMES[kind]} file cannot be read ({error or type(error).__name__}). It is cut off or "
                "damaged; fetch it again."
            ) from error
    for warning in caught:
        if str(warning.message).startswith(_CUT_OFF):
            raise InputFileError(
                f"{path} is cut off or damaged ({str(warning.message).rstrip('.')}). Fetch it again, or correct it."
            )
    return found


def _contig(record: Any, path: Path) -> _Contig:
    from Bio.Seq import UndefinedSequenceError

    name = next((text for text in (record.id, record.name) if text not in _PLACEHOLDERS), None)
    if name is None or not name.isprintable() or any(letter.isspace() for letter in name):
        raise InputFileError(f"{path}: a record has no usable name (got {record.id!r}). Give it an accession.")
    try:
        letters = bytes(record.seq).upper()
    except UndefinedSequenceError:
        letters = b""
    if not letters:
        raise InputFileError(
            f"{path}: record {name!r} has no sequence, as where only its pieces are listed. Fetch the full record."
        )
    require_letters(letters, path, name, 0)
    # Secondary accessions are left out: what they once named may have had other coordinates.
    names = {*record.annotations.get("accessions", ())[:1], record.name} - {name, *_PLACEHOLDERS}
    return _Contig(name, frozenset(names), record.annotations.get("topology") == "circular", letters)


def _aliases(contigs: Mapping[str, _Contig]) -> dict[str, str]:
    shared = Counter(alias for contig in contigs.values() for alias in contig.names)
    return {
        alias: contig.name
        for contig in contigs.values()
        for alias in sorted(contig.names)
        if shared[alias] == 1 and alias not in contigs
    }

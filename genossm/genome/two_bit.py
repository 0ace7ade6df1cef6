"""A 2bit file as a source of sequence: random access through Biopython.

Measured on yeast (12,071,326 bases): Biopython 1.88 unpacks 370 Mb/s, py2bit 90, twobitreader 6.5; and of a file that
lacks its last bytes py2bit gives made-up bases without a word.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from genossm.core.errors import InputFileError
from genossm.genome.runs import Runs, Survey, survey
from genossm.sequence.tokenizer import translate_into

_STEP = 1 << 24
_HEADER = 16
_UNREADABLE = (ValueError, RuntimeError, OSError, OverflowError, MemoryError, KeyError, IndexError)


@dataclass(frozen=True)
class _Opened:
    """One process' and thread's handle. sequences: contig to a Biopython Seq that reads when it is sliced."""

    process: int
    handle: BinaryIO
    sequences: Mapping[str, Any]


class TwoBitSource:
    """Random access to a 2bit file (version 0, either byte order). N runs and soft-mask are those of the file.

    Raises: InputFileError if it is missing, damaged or cut off, or holds no contig, an empty one or two of one name.
    """

    kind = "2bit"
    aliases: Mapping[str, str] = MappingProxyType({})
    circular: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handles = threading.local()
        self._closed = False
        sequences = self._sequences
        self.lengths: Mapping[str, int] = {name: len(sequence) for name, sequence in sequences.items()}
        self._check_contigs()
        self._surveyed = cache(self._survey)

    @property
    def _sequences(self) -> Mapping[str, Any]:
        """This thread's, opened anew after a fork: a file position must not be shared."""
        if self._closed:
            raise InputFileError(f"{self.path} was closed; open it again.")
        opened: _Opened | None = getattr(self._handles, "opened", None)
        if opened is None or opened.process != os.getpid():
            opened = self._handles.opened = self._open()
        return opened.sequences

    def read_letters(self, contig: str, start: int, end: int) -> bytes:
        """ASCII letters, soft-masked ones in lower case. Raises: InputFileError if the file is damaged."""
        sequence = self._sequences[contig]
        try:
            return bytes(sequence[start:end])
        except _UNREADABLE as error:
            raise InputFileError(
                f"{self.path}: cannot read {contig}:{start + 1}-{end} ({error}). The 2bit file is cut off or damaged; "
                "fetch it again."
            ) from error

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[letter]`, soft-masked letters in lower case, into `out` (end - start,)."""
        for first in range(start, end, _STEP):
            last = min(end, first + _STEP)
            translate_into(self.read_letters(contig, first, last), table, out[first - start : last - start])

    def digest(self, contig: str) -> str:
        """SAM M5: MD5 of the upper-case letters, as hex."""
        return self._surveyed(contig).m5

    def n_runs(self, contig: str) -> Runs:
        """Start and end of every run of N, int64 (runs, 2)."""
        return self._surveyed(contig).n_runs

    def soft_mask(self, contig: str) -> Runs:
        """Start and end of every lower-case run, int64 (runs, 2)."""
        return self._surveyed(contig).soft_mask

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        opened: _Opened | None = getattr(self._handles, "opened", None)
        if not self._closed and opened is not None:
            opened.handle.close()
        self._closed = True

    def _survey(self, contig: str) -> Survey:
        return survey(self.read_letters(contig, 0, self.lengths[contig]))

    def _open(self) -> _Opened:
        from Bio import SeqIO

        handle = open(self.path, "rb")  # noqa: SIM115
        try:
            sequences = {record.id: record.seq for record in SeqIO.parse(handle, "twobit")}
        except _UNREADABLE as error:
            handle.close()
            raise InputFileError(
                f"{self.path}: the index of this 2bit file cannot be read ({error}). Fetch it again, or convert it: "
                "twoBitToFa FILE OUT.fa"
            ) from error
        opened = _Opened(os.getpid(), handle, sequences)
        weakref.finalize(opened, handle.close)
        return opened

    def _check_contigs(self) -> None:
        with open(self.path, "rb") as handle:
            header = handle.read(_HEADER)
        order = "little" if header[:1] == b"\x43" else "big"
        said = int.from_bytes(header[8:12], order)
        if not self.lengths or said != len(self.lengths):
            raise InputFileError(
                f"{self.path}: the header of this 2bit file says {said} contigs, its index names {len(self.lengths)}. "
                "It is cut off, or two contigs have one name."
            )
        for contig, length in self.lengths.items():
            if not length:
                raise InputFileError(f"{self.path}: contig {contig!r} has no sequence. Remove it, or fetch it again.")
            # A file that was cut off is found now, and not after an hour of work.
            self.read_letters(contig, length - 1, length)

"""A FASTA file, plain or bgzip, as a source of sequence: random access through htslib's index."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pysam

from genossm.core.errors import InputFileError
from genossm.genome.fasta_index import index_for
from genossm.genome.fasta_records import require_letters
from genossm.genome.raw import packing_of, require_end_block
from genossm.genome.runs import Runs, Survey, survey
from genossm.sequence.tokenizer import translate_into

_STEP = 1 << 24


class FastaSource:
    """Random access to a FASTA file.

    Raises: InputFileError if the file is missing, empty, no FASTA, cut off, or packed with plain gzip.
    """

    kind = "fasta"
    aliases: Mapping[str, str] = MappingProxyType({})
    circular: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self.path = path
        packing = packing_of(path)
        if packing == "gzip":
            raise InputFileError(
                f"{path} is packed with gzip, which cannot be read from the middle. Repack it (gunzip -c FILE | "
                "bgzip > NEW.fa.gz), or build a store, which reads it from end to end: "
                "genossm genome build FASTA -o STORE.zarr"
            )
        if packing == "bgzip":
            require_end_block(path)
        self._index = index_for(path, packing)
        self._handles = threading.local()
        self._closed = False
        self._surveys: dict[str, Survey] = {}
        self.lengths: Mapping[str, int] = dict(zip(self._file.references, self._file.lengths))

    @property
    def _file(self) -> pysam.FastaFile:
        """This thread's handle, opened anew after a fork: htslib's file position must not be shared."""
        if self._closed:
            raise InputFileError(f"{self.path} was closed; open it again.")
        if getattr(self._handles, "process", None) != os.getpid():
            self._handles.file = self._open()
            self._handles.process = os.getpid()
        return self._handles.file

    def read_letters(self, contig: str, start: int, end: int) -> bytes:
        """ASCII letters in the file's case.

        Raises: InputFileError if the file gives fewer letters than its index says, or one that is no DNA letter.
        """
        try:
            letters = self._file.fetch(contig, start, end).encode("ascii")
        except (ValueError, UnicodeError, OSError) as error:
            raise InputFileError(
                f"{self.path}: cannot read {contig}:{start + 1}-{end} ({error}). Fetch it again."
            ) from error
        if len(letters) != end - start:
            raise InputFileError(
                f"{self.path}: {contig}:{start + 1}-{end} gives {len(letters)} of {end - start} bases. "
                "The file is damaged or its .fai index belongs to another file; remove the index."
            )
        require_letters(letters, self.path, contig, start)
        return letters

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[letter]`, letters in the file's case, into `out` (end - start,)."""
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

    def _surveyed(self, contig: str) -> Survey:
        if contig not in self._surveys:
            self._surveys[contig] = survey(self.read_letters(contig, 0, self.lengths[contig]))
        return self._surveys[contig]

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        if not self._closed and getattr(self._handles, "process", None) == os.getpid():
            self._handles.file.close()
        self._closed = True

    def _open(self) -> pysam.FastaFile:
        verbosity = pysam.set_verbosity(0)
        try:
            return pysam.FastaFile(
                str(self.path),
                filepath_index=str(self._index.fai),
                filepath_index_compressed=None if self._index.gzi is None else str(self._index.gzi),
            )
        except (ValueError, OSError) as error:
            raise InputFileError(
                f"{self.path}: cannot be opened with its index {self._index.fai} ({error})."
            ) from error
        finally:
            pysam.set_verbosity(verbosity)

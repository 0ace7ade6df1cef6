"""A genome store as a source of sequence."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from genossm.core.errors import InputFileError
from genossm.genome.chunks import ChunkedBytes
from genossm.genome.layout import N_RUNS, SEQUENCE, SOFT_MASK, array_path, read_attributes
from genossm.genome.remote import zarr_location
from genossm.genome.runs import Runs, overlapping
from genossm.sequence.alphabet import LETTERS

_IDENTITY = bytes(range(256))
_LOWER_BIT = 0x20
_KEPT_ARRAYS = 64


class StoreSource:
    """Random access to a genome store. It holds no open file, so processes and threads may share it.

    Raises: InputFileError if it is not a whole store, or one of a newer schema.
    """

    kind = "store"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attributes = read_attributes(path)
        self._contigs = {contig.name: contig for contig in self.attributes.contigs}
        self.lengths = MappingProxyType({name: contig.length for name, contig in self._contigs.items()})
        self.aliases = MappingProxyType(self.attributes.aliases)
        self.circular = frozenset(name for name, contig in self._contigs.items() if contig.topology == "circular")
        self._sequence = lru_cache(maxsize=_KEPT_ARRAYS)(self._open_sequence)
        self._runs = lru_cache(maxsize=_KEPT_ARRAYS)(self._read_runs)
        self._closed = False

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[letter]`, letters in the case of the FASTA file, into `out` (end - start,)."""
        if self._closed:
            raise InputFileError(f"{self.path} was closed; open it again.")
        sequence = self._sequence(contig)
        masked = overlapping(self.soft_mask(contig), start, end) if _minds_case(table) else ()
        if not len(masked):
            sequence.read_into(start, end, table, out)
            return
        sequence.read_into(start, end, _IDENTITY, out)
        for first, last in masked:
            out[first:last] |= _LOWER_BIT
        out[:] = np.frombuffer(out.tobytes().translate(table), dtype=np.uint8)

    def digest(self, contig: str) -> str:
        """SAM M5 as it was computed when the store was built."""
        return self._contigs[contig].m5

    def n_runs(self, contig: str) -> Runs:
        """Start and end of every run of N, int64 (runs, 2)."""
        return self._runs(N_RUNS, contig) if self._contigs[contig].n_bases else np.empty((0, 2), dtype=np.int64)

    def soft_mask(self, contig: str) -> Runs:
        """Start and end of every lower-case run, int64 (runs, 2)."""
        return self._runs(SOFT_MASK, contig) if self._contigs[contig].masked_bases else np.empty((0, 2), dtype=np.int64)

    def close(self) -> None:
        """Reading afterwards is an error."""
        self._closed = True

    def _open_sequence(self, contig: str) -> ChunkedBytes:
        array = ChunkedBytes(self.path / array_path(SEQUENCE, contig))
        if array.length != self.lengths[contig]:
            raise InputFileError(
                f"{self.path}: contig {contig} should have {self.lengths[contig]:,} bases, its array has "
                f"{array.length:,}. The store is damaged; build it again."
            )
        return array

    def _read_runs(self, group: str, contig: str) -> Runs:
        import zarr

        path = self.path / array_path(group, contig)
        try:
            return np.asarray(zarr.open_array(zarr_location(path), mode="r")[:], dtype=np.int64)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputFileError(
                f"{path}: a part of the store is missing or damaged ({error}). Build it again."
            ) from error


@lru_cache(maxsize=64)
def _minds_case(table: bytes) -> bool:
    """Whether a table looks upper and lower case letters up differently."""
    return LETTERS.lower().translate(table) != LETTERS.upper().translate(table)

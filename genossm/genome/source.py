"""What a file format has to offer so that `Genome` can read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genossm.genome.runs import Runs


class Source(Protocol):
    """A file of sequence. `Genome` checks every interval before it asks, and resolves aliases."""

    kind: str
    path: Path

    @property
    def lengths(self) -> Mapping[str, int]:
        """Contig to its number of bases, in the file's order."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias to contig, as far as the file itself names any."""
        ...

    @property
    def circular(self) -> frozenset[str]:
        """Contigs that the file says are circular."""
        ...

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[letter]` into `out` (end - start,), letters being ASCII in the file's case."""
        ...

    def digest(self, contig: str) -> str:
        """SAM M5: MD5 of the upper-case letters, as hex."""
        ...

    def n_runs(self, contig: str) -> Runs:
        """Start and end of every run of N in either case, int64 (runs, 2), 0-based half-open."""
        ...

    def soft_mask(self, contig: str) -> Runs:
        """Start and end of every lower-case run, int64 (runs, 2), 0-based half-open."""
        ...

    def close(self) -> None: ...

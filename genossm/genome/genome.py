"""One interface over every kind of reference: checked intervals in, letters or token ids out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.core.errors import ContigNotFoundError, IntervalError, TokenizerError
from genossm.genome.names import ContigNames
from genossm.genome.runs import Runs, reference_digest
from genossm.genome.source import Source
from genossm.sequence.alphabet import COMPLEMENT_TABLE
from genossm.sequence.interval import Interval, as_interval
from genossm.sequence.normalize import Fetch
from genossm.sequence.tokenizer import NucleotideTokenizer, Tokenizer

_IDENTITY = bytes(range(256))
_UPPER = _IDENTITY.upper()


class Genome:
    """A reference that is open for reading; use `genossm.genome.open`.

    Contigs may be named by any alias. Intervals that leave their contig raise, except on a circular contig, where
    `end` may pass the length by up to one turn and reading goes on from 0. It can be pickled and used after a fork:
    every process opens the file for itself.
    """

    def __init__(
        self, source: Source, *, aliases: Mapping[str, str] | None = None, circular: Collection[str] = ()
    ) -> None:
        self._source = source
        self._given = (dict(aliases or {}), tuple(circular))
        self._names = ContigNames(source.lengths, {**source.aliases, **(aliases or {})}, self.name)
        self._circular = source.circular | {self._names.resolve(contig) for contig in circular}

    @property
    def path(self) -> Path:
        """Where the file or the store is."""
        return self._source.path

    @property
    def name(self) -> str:
        """The file's name, for messages and headers."""
        return self._source.path.name

    @property
    def kind(self) -> str:
        """ "fasta", "2bit", "genbank", "embl" or "store"."""
        return self._source.kind

    @property
    def contigs(self) -> tuple[str, ...]:
        """The genome's own contig names, in the file's order."""
        return tuple(self._source.lengths)

    @property
    def lengths(self) -> dict[str, int]:
        """Contig to its number of bases, in the file's order."""
        return dict(self._source.lengths)

    def __contains__(self, contig: object) -> bool:
        try:
            self.resolve(str(contig))
        except ContigNotFoundError:
            return False
        return True

    def resolve(self, contig: str) -> str:
        """The genome's own name of a contig. Raises: ContigNotFoundError that names the nearest."""
        return self._names.resolve(contig)

    def aliases(self, contig: str) -> tuple[str, ...]:
        """Every other name of a contig, sorted."""
        return self._names.aliases(self.resolve(contig))

    def length(self, contig: str) -> int:
        """Number of bases."""
        return self._source.lengths[self.resolve(contig)]

    def is_circular(self, contig: str) -> bool:
        """Whether the contig's end joins its start."""
        return self.resolve(contig) in self._circular

    def fetch(self, interval: Interval | str, *, uppercase: bool = True) -> bytes:
        """ASCII letters of an interval, reverse-complemented on the minus strand.

        interval: or a 1-based region, as in "chr1:1,000-2,000".
        uppercase: if False, soft-masked bases come in lower case.
        Raises: ContigNotFoundError; IntervalError if it leaves the contig or cannot be read; UsageError for anything
        but an interval or a region.
        """
        return self.fetch_array(interval, uppercase=uppercase).tobytes()

    def fetch_array(
        self, interval: Interval | str, *, uppercase: bool = True, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """`fetch` as a uint8 array of ASCII codes (length,), written into `out` if given."""
        return self._read(interval, _UPPER if uppercase else _IDENTITY, out)

    def encode(
        self,
        interval: Interval | str,
        tokenizer: Tokenizer,
        *,
        uppercase: bool = True,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[Any]:
        """Token ids of an interval, without special tokens; uint8 (length,) for the nucleotide tokenizer.

        Other tokenizers decide how many ids there are, and see the letters of the interval alone.

        uppercase: if False, the tokenizer sees soft-masked bases in lower case.
        out: array of the result's length to write into (nucleotide tokenizer only).
        Raises: ContigNotFoundError; IntervalError; AlphabetError if the tokenizer refuses a letter; TokenizerError if
        it refuses the length or `out`.
        """
        if isinstance(tokenizer, NucleotideTokenizer) and tokenizer.on_unknown == "unk":
            return self._read(interval, _compose(_UPPER if uppercase else _IDENTITY, tokenizer.lookup), out)
        letters = self.fetch_array(interval, uppercase=uppercase)
        if out is None:
            return tokenizer.encode(letters)
        if not isinstance(tokenizer, NucleotideTokenizer):
            raise TokenizerError(
                f"{interval}, out: {type(tokenizer).__name__} cannot write into an array; leave it out."
            )
        return tokenizer.encode(letters, out=out)

    def reader(self, contig: str) -> Fetch:
        """`fetch(start0, end0) -> bytes` of one contig, upper case, cut at the contig's ends and empty outside.

        This is what `genossm.sequence.left_align` and `place` read the reference with.
        """
        contig, length = self.resolve(contig), self.length(contig)

        def fetch(start0: int, end0: int) -> bytes:
            start0, end0 = max(0, start0), min(end0, length)
            return self.fetch(Interval(contig, start0, end0)) if start0 < end0 else b""

        return fetch

    def n_runs(self, contig: str) -> Runs:
        """Start and end of every run of N in either case, int64 (runs, 2), 0-based half-open."""
        return self._source.n_runs(self.resolve(contig))

    def soft_mask(self, contig: str) -> Runs:
        """Start and end of every lower-case run, int64 (runs, 2), 0-based half-open."""
        return self._source.soft_mask(self.resolve(contig))

    def digest(self, contig: str) -> str:
        """SAM M5 / refget-compatible MD5 of the upper-case sequence, as hex; equal to `samtools dict`."""
        return self._source.digest(self.resolve(contig))

    @cached_property
    def reference_digest(self) -> str:
        """One SHA-256 over name, length and M5 of every contig, in sorted order: equal for a FASTA and its store."""
        return reference_digest((contig, self.length(contig), self.digest(contig)) for contig in self.contigs)

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._source.close()

    def __enter__(self) -> Genome:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Genome {self.name}: {len(self.contigs)} contigs, {sum(self._source.lengths.values()):,} bases>"

    def __reduce__(self) -> tuple[Callable[..., Genome], tuple[Any, ...]]:
        return _reopen, (str(self.path), *self._given)

    def _read(self, interval: Interval | str, table: bytes, out: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
        interval = as_interval(interval)
        contig, length = self._checked(interval)
        if out is None:
            out = np.empty(len(interval), dtype=np.uint8)
        elif out.dtype != np.uint8 or out.shape != (len(interval),):
            raise IntervalError(f"{interval}, out: got {out.dtype} {out.shape}, wanted uint8 ({len(interval)},).")
        # The minus strand is written backwards through a reversed view: no second pass over the window.
        target = out
        if interval.strand == "-":
            table, target = _compose(COMPLEMENT_TABLE, table), out[::-1]
        before_turn = min(interval.end, length)
        cut = before_turn - interval.start
        self._source.read_into(contig, interval.start, before_turn, table, target[:cut])
        if interval.end > length:
            self._source.read_into(contig, 0, interval.end - length, table, target[cut:])
        return out

    def _checked(self, interval: Interval) -> tuple[str, int]:
        contig = self.resolve(interval.contig)
        length = self._source.lengths[contig]
        if interval.end <= length:
            return contig, length
        if contig in self._circular and interval.start < length and len(interval) <= length:
            return contig, length
        raise IntervalError(
            f"{interval} leaves contig {contig} of {self.name}, which has {length:,} bases. "
            "Check the assembly, or choose a shorter window."
        )


@lru_cache(maxsize=32)
def _compose(first: bytes, second: bytes) -> bytes:
    """The table that looks a letter up in `first` and the result in `second`."""
    return first.translate(second)


def _reopen(path: str, aliases: Mapping[str, str], circular: tuple[str, ...]) -> Genome:
    from genossm.genome import open as open_genome

    return open_genome(path, aliases=aliases, circular=circular)

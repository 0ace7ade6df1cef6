"""What there is to know about a whole contig: its digest, where it is N, where it is soft-masked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Survey:
    """m5: SAM digest.   n_runs, soft_mask: int64 (runs, 2) start and end, 0-based half-open."""

    m5: str
    n_runs: Runs
    soft_mask: Runs


def survey(letters: bytes) -> Survey:
    """Go through the letters of a contig once."""
    m5 = hashlib.md5(letters.upper(), usedforsecurity=False).hexdigest()
    return Survey(m5, n_runs(letters), masked_runs(letters))


def reference_digest(contigs: Iterable[tuple[str, int, str]]) -> str:
    """SHA-256 over (name, length, M5) of every contig, in sorted order, as hex."""
    lines = sorted(f"{name}\t{length}\t{m5}\n" for name, length, m5 in contigs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def n_runs(letters: bytes) -> Runs:
    """Start and end (0-based half-open) of every run of N in either case, int64 (runs, 2)."""
    return _runs(letters, lambda block: (block | 0x20) == ord("n"))


def masked_runs(letters: bytes) -> Runs:
    """Start and end (0-based half-open) of every lower-case run, int64 (runs, 2)."""
    return _runs(letters, lambda block: block >= ord("a"))


def total(runs: Runs) -> int:
    """How many bases the runs cover."""
    return int((runs[:, 1] - runs[:, 0]).sum())


def overlapping(runs: Runs, start: int, end: int) -> Runs:
    """The runs that share a base with start to end, cut to it and counted from `start`."""
    first, last = np.searchsorted(runs[:, 1], start, side="right"), np.searchsorted(runs[:, 0], end, side="left")
    return np.clip(runs[first:last], start, end) - start


def _runs(letters: bytes, is_member: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]) -> Runs:
    array = np.frombuffer(letters, dtype=np.uint8)
    edges: list[npt.NDArray[np.int64]] = []
    inside = False
    for start in range(0, len(array), _BLOCK):
        member = is_member(array[start : start + _BLOCK])
        changed = np.flatnonzero(np.diff(member, prepend=inside)).astype(np.int64)
        edges.append(changed + start)
        inside = bool(member[-1])
    if inside:
        edges.append(np.array([len(array)], dtype=np.int64))
    return np.concatenate(edges).reshape(-1, 2) if edges else np.empty((0, 2), dtype=np.int64)

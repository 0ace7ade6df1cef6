"""Whether a genome store still holds what was put into it: every base is read and its digest computed anew."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from genossm.core.errors import InputFileError, UsageError
from genossm.genome.formats import open_source
from genossm.genome.genome import Genome
from genossm.genome.layout import StoredContig
from genossm.genome.runs import Runs, n_runs, reference_digest, total
from genossm.genome.store import StoreSource

_BLOCK = 1 << 22
_UPPER = bytes(range(256)).upper()

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class ContigCheck:
    """problem: what is wrong with the contig, None if nothing is."""

    contig: str
    length: int
    m5: str
    problem: str | None


def verify(path: str | os.PathLike[str], *, progress: Progress | None = None) -> list[ContigCheck]:
    """Read the whole store at `path` and compare it with its own digests, contig by contig.

    progress: called with (contig, bases so far) after every contig.   Memory: a few times 4 Mb, whatever the contig.
    Raises: UsageError for a reference that is no store; InputFileError if the store's attributes cannot be read or
    contradict themselves.
    """
    source = open_source(path)
    if not isinstance(source, StoreSource):
        source.close()
        raise UsageError(
            f"{path} is no genome store, and carries no digests to verify. `genossm genome info` computes those of any "
            "reference; `genossm genome build` makes a store."
        )
    attributes = source.attributes
    recorded = reference_digest((one.name, one.length, one.m5) for one in attributes.contigs)
    if recorded != attributes.reference_digest:
        raise InputFileError(
            f"{path}: the reference's digest ({attributes.reference_digest[:12]}) does not follow from those of the "
            f"contigs ({recorded[:12]}): attributes were changed. Build the store again."
        )
    return list(_checks(source, progress))


def compare(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> list[ContigCheck]:
    """Compare what the reference at `path` holds with another one of any kind: a store with the FASTA it is used with.

    One entry a contig of the first, by the digests of their bases, and of their soft-mask; then one for each contig
    that the other alone has. Contigs may go by any alias.
    Raises: InputFileError as opening them does.
    """
    with Genome(open_source(path)) as ours, Genome(open_source(other)) as theirs:
        checks = [
            ContigCheck(contig, ours.length(contig), ours.digest(contig), _difference(ours, theirs, contig))
            for contig in ours.contigs
        ]
        lacking = [contig for contig in theirs.contigs if contig not in ours]
        checks += [
            ContigCheck(contig, theirs.length(contig), theirs.digest(contig), f"only {theirs.name} has it")
            for contig in lacking
        ]
    return checks


def require_equal(path: str | os.PathLike[str], other: str | os.PathLike[str], checks: list[ContigCheck]) -> None:
    """Raises: InputFileError that names the contigs in which two references differ, if there are any."""
    differing = [one.contig for one in checks if one.problem]
    if differing:
        named = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise InputFileError(
            f"{path} and {other} are not the same reference: {len(differing)} of {len(checks)} contigs differ "
            f"({named}). Build the store again from this file, or use the one that it was built from."
        )


def _difference(ours: Genome, theirs: Genome, contig: str) -> str | None:
    if contig not in theirs:
        return f"{theirs.name} does not have it"
    if ours.length(contig) != theirs.length(contig):
        return f"{theirs.name} has {theirs.length(contig):,} bases of it"
    if ours.digest(contig) != theirs.digest(contig):
        return f"its bases differ: in {theirs.name} their digest is {theirs.digest(contig)}"
    if not np.array_equal(ours.soft_mask(contig), theirs.soft_mask(contig)):
        return f"the bases are the same, and the soft-mask is not that of {theirs.name}"
    return None


def require_whole(path: str | os.PathLike[str], checks: list[ContigCheck]) -> None:
    """Raises: InputFileError that names the damaged contigs, if there are any."""
    damaged = [one.contig for one in checks if one.problem]
    if damaged:
        named = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        raise InputFileError(
            f"{path} is damaged: {len(damaged)} of {len(checks)} contigs are not what was built ({named}). "
            "Build it again."
        )


def as_table(checks: list[ContigCheck]) -> str:
    """Tab-separated text with a header line; the last column says OK or what is wrong."""
    lines = ["contig\tlength\tm5\tstatus"]
    lines += [f"{one.contig}\t{one.length}\t{one.m5}\t{one.problem or 'OK'}" for one in checks]
    return "\n".join(lines)


def _checks(source: StoreSource, progress: Progress | None) -> Iterator[ContigCheck]:
    done = 0
    for contig in source.attributes.contigs:
        try:
            problem = _problem(source, contig)
        except InputFileError as error:
            problem = str(error)
        done += contig.length
        if progress:
            progress(contig.name, done)
        yield ContigCheck(contig.name, contig.length, contig.m5, problem)


def _problem(source: StoreSource, contig: StoredContig) -> str | None:
    digest = hashlib.md5(usedforsecurity=False)
    runs: list[Runs] = []
    for start in range(0, contig.length, _BLOCK):
        letters = np.empty(min(_BLOCK, contig.length - start), dtype=np.uint8)
        source.read_into(contig.name, start, start + len(letters), _UPPER, letters)
        digest.update(letters.data)
        runs.append(n_runs(letters.tobytes()) + start)
    if digest.hexdigest() != contig.m5:
        return f"its bases have the digest {digest.hexdigest()}, wanted {contig.m5}"
    found = _joined(np.concatenate(runs)) if runs else np.empty((0, 2), dtype=np.int64)
    if not np.array_equal(found, source.n_runs(contig.name)) or total(found) != contig.n_bases:
        return "its record of N runs does not agree with its bases"
    return _mask_problem(source.soft_mask(contig.name), contig)


def _mask_problem(mask: Runs, contig: StoredContig) -> str | None:
    """The mask is nowhere else in the store: it can be impossible, or not add up to what was counted."""
    edges = mask.reshape(-1)
    inside = not len(edges) or (edges[0] >= 0 and edges[-1] <= contig.length)
    if not inside or (np.diff(edges) <= 0).any() or total(mask) != contig.masked_bases:
        return f"its soft-mask is damaged: wanted {contig.masked_bases:,} bases in ordered runs"
    return None


def _joined(runs: Runs) -> Runs:
    """Runs that touch at the seam of two blocks are one."""
    if not len(runs):
        return runs
    touch = runs[1:, 0] == runs[:-1, 1]
    starts, ends = np.append(True, ~touch), np.append(~touch, True)
    return np.stack([runs[starts, 0], runs[ends, 1]], axis=1)

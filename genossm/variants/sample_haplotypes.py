"""What a sample's haplotypes hold beside the reference: every allele that is known to be on one of them.

They are read in one pass over the whole file before scoring, since what stands on a haplotype within a window may stand
anywhere in the file. Kept are the alleles that the sample carries and nothing else, about 70 bytes each, whatever the
number of records and samples.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NO_PHASE_SET = -1
_HAPLOTYPES = 62


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Reference bases `start` to `end` of a contig replaced by `letters`; either may be empty, not both."""

    start: int
    end: int
    letters: bytes

    def overlaps(self, other: Edit) -> bool:
        """Whether two cannot both be made: they share a reference base, or are insertions at the same place."""
        first, second = sorted((self, other))
        return second.start < first.end or first.start == first.end == second.start == second.end


@dataclass(frozen=True, slots=True)
class Carrier:
    """A haplotype of the sample.   phase_set: within which its heterozygous alleles are known to be on it."""

    number: int
    phase_set: int | None


@dataclass(slots=True)
class _Contig:
    """Columns of edits.   masks: which haplotypes, a bit each.   sets: the phase set; homozygous edits are in all.

    After `settle`, in the order of edits; `clusters[i]` is the first edit of those that edit i hangs together with.
    """

    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    masks: array[int] = field(default_factory=lambda: array("q"))
    sets: array[int] = field(default_factory=lambda: array("q"))
    everywhere: bytearray = field(default_factory=bytearray)
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    letters: bytearray = field(default_factory=bytearray)
    clusters: array[int] = field(default_factory=lambda: array("q"))
    reach: array[int] = field(default_factory=lambda: array("q"))

    def add(self, edit: Edit, mask: int, phase_set: int, *, everywhere: bool) -> None:
        self.starts.append(edit.start)
        self.ends.append(edit.end)
        self.masks.append(mask)
        self.sets.append(phase_set)
        self.everywhere.append(everywhere)
        self.letters += edit.letters
        self.offsets.append(len(self.letters))

    def edit(self, index: int) -> Edit:
        first, last = self.offsets[index], self.offsets[index + 1]
        return Edit(self.starts[index], self.ends[index], bytes(self.letters[first:last]))

    def settle(self) -> _Contig:
        """The same in the order of edits, which does not depend on that of the file."""
        starts, ends = np.frombuffer(self.starts, np.int64), np.frombuffer(self.ends, np.int64)
        order = np.lexsort((ends, starts))
        for first, last in _runs(starts[order], ends[order]):
            order[first:last] = sorted(
                order[first:last], key=lambda i: (self.edit(i), self.everywhere[i], self.sets[i], self.masks[i])
            )
        settled = _Contig()
        for index in map(int, order):
            settled.add(self.edit(index), self.masks[index], self.sets[index], everywhere=bool(self.everywhere[index]))
        reach, cluster = -1, 0
        for index, (start, end) in enumerate(zip(settled.starts, settled.ends)):
            # Insertions at one place hang together, though they touch no base.
            same_place = index > 0 and start == end == settled.starts[index - 1] == settled.ends[index - 1]
            cluster = cluster if start < reach or same_place else index
            reach = max(reach, end)
            settled.clusters.append(cluster)
            settled.reach.append(reach)
        return settled

    def near(self, start: int, end: int) -> range:
        """Edits that touch `start` to `end`, and all that they hang together with in front."""
        first, last = bisect_left(self.reach, start), bisect_left(self.starts, end + 1)
        return range(self.clusters[first], last) if first < last else range(0)


class SampleHaplotypes:
    """All edits of a sample.   skipped: alleles that it carries and that no haplotype gets, by reason."""

    def __init__(self) -> None:
        self._contigs: dict[str, _Contig] = defaultdict(_Contig)
        self.skipped: Counter[str] = Counter()
        self.carried = 0

    def add(self, contig: str, edit: Edit, haplotypes: Iterable[int], phase_set: int | None, *, same: bool) -> None:
        """An allele on some haplotypes.   same: on all of them, so that it is on them in every phase set."""
        numbers = [number for number in haplotypes if number < _HAPLOTYPES]
        set_number = NO_PHASE_SET if phase_set is None else phase_set
        self._contigs[contig].add(edit, sum(1 << number for number in numbers), set_number, everywhere=same)
        self.carried += 1

    def settle(self) -> None:
        """To be called once when everything has been added."""
        for contig in list(self._contigs):
            self._contigs[contig] = edits = self._contigs[contig].settle()
            self.skipped["OVERLAPPING"] += sum(1 for _ in _left_out(edits))

    def on(self, contig: str, carrier: Carrier, start: int, end: int) -> tuple[Edit, ...]:
        """The edits of a haplotype that lie wholly between two places, in their order.

        An insertion at `start` lies before it, but for the contig's own start. Of edits that overlap, the first is made
        and the others are left out.
        """
        edits = self._contigs.get(contig)
        if edits is None:
            return ()
        wanted = (index for index in edits.near(start, end) if _is_on(edits, index, carrier))
        chosen = _without_overlaps(edits.edit(index) for index in wanted)
        return tuple(one for one in chosen if start <= one.start and one.end <= end and (one.end > start or not start))

    def digest(self) -> str:
        """SHA-256 of all edits: equal where every haplotype is."""
        found = hashlib.sha256()
        for contig in sorted(self._contigs):
            edits = self._contigs[contig]
            found.update(contig.encode("utf-8", errors="surrogateescape") + b"\0")
            for column in (edits.starts, edits.ends, edits.masks, edits.sets, edits.offsets):
                found.update(column.tobytes())
            found.update(edits.everywhere + edits.letters)
        return found.hexdigest()


def _is_on(edits: _Contig, index: int, carrier: Carrier) -> bool:
    phase_set = NO_PHASE_SET if carrier.phase_set is None else carrier.phase_set
    return bool(edits.masks[index] >> carrier.number & 1) and (
        bool(edits.everywhere[index]) or edits.sets[index] == phase_set
    )


def _without_overlaps(edits: Iterable[Edit]) -> list[Edit]:
    """Edits in their order, each unless it overlaps one before it that is made. Twice the same is once."""
    made: list[Edit] = []
    for one in edits:
        if not any(one.overlaps(before) for before in made[-2:]):
            made.append(one)
    return made


def _left_out(edits: _Contig) -> Iterator[int]:
    """Edits that some haplotype which carries them does not get, for another stands there."""
    for first, last in _runs(np.frombuffer(edits.clusters, np.int64)):
        cluster = range(first, last)
        made: dict[tuple[int, int], list[Edit]] = {}
        for index in cluster:
            one = edits.edit(index)
            for number in range(edits.masks[index].bit_length()):
                carrier = Carrier(number, edits.sets[index] if edits.sets[index] != NO_PHASE_SET else None)
                if not edits.masks[index] >> number & 1:
                    continue
                key = number, edits.sets[index]
                if key not in made:
                    made[key] = _without_overlaps(edits.edit(i) for i in cluster if _is_on(edits, i, carrier))
                if one not in made[key]:
                    yield index
                    break


def _runs(*columns: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last (not included) of the stretches of two rows and more that are equal in all columns."""
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    edges = np.flatnonzero(~same) + 1
    firsts, lasts = np.concatenate([[0], edges]), np.concatenate([edges, [len(columns[0])]])
    several = lasts - firsts > 1
    return list(zip(firsts[several].tolist(), lasts[several].tolist()))

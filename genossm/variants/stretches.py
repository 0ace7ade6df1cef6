"""Pieces of a sample's haplotypes as contigs of their own, which passes read as they read any other.

An allele is compared with REF on the haplotype that carries it. The window is the one that the allele has on the
reference; the sample's other alleles of the same haplotype are made in it, so that both sides of the question differ in
the allele alone. The stretch holds the allele as well: all alleles of a haplotype share it, and the question is put the
other way round, REF against what stands there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import cast

from genossm.genome import Genome
from genossm.sequence import Interval, Placement, iupac_first, placed
from genossm.variants.haplotypes import Window, allele_window
from genossm.variants.reference import Letters
from genossm.variants.sample_haplotypes import Carrier, Edit, SampleHaplotypes


@dataclass(frozen=True)
class CarriedPlacement(Placement):
    """Where an allele stands on the reference, what it changes, and the haplotypes of the sample that carry it."""

    edit: Edit
    carriers: tuple[Carrier, ...]

    @classmethod
    def of(cls, placement: Placement, edit: Edit, carriers: tuple[Carrier, ...]) -> CarriedPlacement:
        where = placement.contig, placement.leftmost, placement.rightmost
        return cls(*where, placement.ref, placement.alt, edit, carriers)


@dataclass(frozen=True)
class Stretch:
    """A piece of a haplotype as a contig of its own.

    start, end: its place on the reference, `window_start` to `window_end` of which is the window.   edits: made in it,
    in their order.
    """

    contig: str
    start: int
    end: int
    window_start: int
    window_end: int
    edits: tuple[Edit, ...]

    @cached_property
    def places(self) -> list[int]:
        """Where each edit begins in the stretch."""
        growth = accumulate((_growth(one) for one in self.edits), initial=0)
        return [one.start - self.start + more for one, more in zip(self.edits, growth)]

    @cached_property
    def window(self) -> tuple[int, int]:
        """Where the window is in the stretch."""
        # What is inserted at a contig's very start is in its first window.
        start = 0 if self.window_start == self.start else self._behind(self.window_start)
        return start, self._behind(self.window_end)

    def __len__(self) -> int:
        return self._behind(self.end)

    def digest(self) -> str:
        """Equal for equal ones alone."""
        edits = [(one.start, one.end, one.letters) for one in self.edits]
        described = repr((self.contig, self.start, self.end, self.window_start, self.window_end, edits))
        return hashlib.blake2b(described.encode("utf-8", errors="surrogateescape"), digest_size=16).hexdigest()

    def place(self, edit: Edit) -> int:
        """Where one of its edits begins in the stretch."""
        return self.places[bisect_left(self.edits, edit)]

    def read(self, reference: Letters, first: int, last: int) -> bytes:
        """Its letters `first` to `last`, of which no others are looked at."""
        number = max(0, bisect_left(self.places, first) - 1)
        at, there = 0, self.start
        if number:
            at, there = self.places[number], self.edits[number].start
        pieces: list[bytes] = []
        for one, place in zip(self.edits[number:], self.places[number:]):
            pieces.append(self._reference(reference, at, place, there, first, last))
            pieces.append(one.letters[max(0, first - place) : max(0, last - place)])
            at, there = place + len(one.letters), one.end
            if at >= last:
                return b"".join(pieces)
        return b"".join([*pieces, self._reference(reference, at, last, there, first, last)])

    def _reference(self, reference: Letters, at: int, until: int, there: int, first: int, last: int) -> bytes:
        """Of the stretch's letters `at` to `until`, which stand on the reference from `there` on, those asked for."""
        low, high = max(at, first), min(until, last)
        return reference.wrapped(self.contig, there + low - at, there + high - at) if low < high else b""

    def _behind(self, place: int) -> int:
        """Where a place of the reference that no edit covers stands in the stretch: behind what is inserted there."""
        return place - self.start + sum(_growth(one) for one in self.edits if one.end <= place)


def _growth(edit: Edit) -> int:
    return len(edit.letters) - (edit.end - edit.start)


class _Stretches:
    """Stretches by name, as passes ask a genome for contigs."""

    def __init__(self, reference: Letters) -> None:
        self._reference = reference
        self._by_name: dict[str, Stretch] = {}
        self._names: dict[Stretch, str] = {}
        self._lengths: dict[str, int] = {}

    def name(self, stretch: Stretch) -> str:
        """That of a stretch, the same for the same one; no name is used for two.

        It follows from what the stretch holds: passes order alleles, and draw samples, by the names of contigs, and a
        run that is resumed has to do as the one that it resumes.
        """
        if stretch not in self._names:
            name = f"{stretch.contig} {stretch.digest()}"
            self._names[stretch], self._by_name[name], self._lengths[name] = name, stretch, len(stretch)
        return self._names[stretch]

    def forget(self) -> None:
        """Drop all."""
        self._by_name, self._names, self._lengths = {}, {}, {}

    def stretch(self, name: str) -> Stretch:
        return self._by_name[name]

    def length(self, contig: str) -> int:
        return self._lengths[contig]

    def is_circular(self, contig: str) -> bool:  # noqa: ARG002
        return False

    def fetch(self, interval: Interval) -> bytes:
        return self._by_name[interval.contig].read(self._reference, interval.start, interval.end)


class StretchLetters(Letters):
    """Letters of stretches, each of which is all the window that there is to its alleles."""

    def __init__(self, reference: Letters) -> None:
        self.stretches = _Stretches(reference)
        super().__init__(cast(Genome, self.stretches))

    def window(self, contig: str, start0: int, context: int | None) -> tuple[int, int]:  # noqa: ARG002
        return self.stretches.stretch(contig).window

    def forget(self) -> None:
        """Drop what has been read: other stretches come."""
        self.stretches.forget()
        super().__init__(cast(Genome, self.stretches))


class HaplotypeWindows:
    """Turns carried alleles into placements on stretches of the haplotypes that carry them."""

    def __init__(self, reference: Letters, haplotypes: SampleHaplotypes, context: int | None) -> None:
        self.letters = StretchLetters(reference)
        self._reference, self._haplotypes, self._context = reference, haplotypes, context
        self._shared: dict[tuple[Carrier, Window], tuple[Stretch, str, frozenset[Edit]]] = {}

    def forget(self) -> None:
        """Drop the stretches: others come."""
        self._shared = {}
        self.letters.forget()

    def placements(self, one: CarriedPlacement) -> list[Placement]:
        """One a carrier, REF and ALT exchanged: the stretch holds the allele, `alt` is what REF has there."""
        # The window of the allele on the reference: the grid does not move with what stands on a haplotype.
        window = allele_window(one, self._context, "+", self._reference)
        return [self._placement(one, carrier, window) for carrier in one.carriers]

    def _placement(self, one: CarriedPlacement, carrier: Carrier, window: Window) -> Placement:
        genome, contig = self._reference.genome, one.contig
        edit = _within(one, window, genome.length(contig) if genome.is_circular(contig) else 0)
        stretch, name, made = self._stretch(carrier, window)
        if edit not in made:
            others = [other for other in stretch.edits if not other.overlaps(edit)]
            stretch = replace(stretch, edits=tuple(sorted([edit, *others])))
            name = self.letters.stretches.name(stretch)
        there = iupac_first(self._reference.around(contig, edit.start, edit.end)).decode("ascii")
        return placed(name, stretch.place(edit), edit.letters.decode("ascii"), there, self.letters.reader(name))

    def _stretch(self, carrier: Carrier, window: Window) -> tuple[Stretch, str, frozenset[Edit]]:
        """A haplotype in a window, as all of its alleles there share it, with its name and its edits."""
        if (carrier, window) not in self._shared:
            contig, start, end = window.contig, window.start, window.end
            length, circular = self._reference.genome.length(contig), self._reference.genome.is_circular(contig)
            # As far beyond the window as a causal model may have to compare, or a repeat to go on.
            more = (end - start) // 2
            if circular:
                more = min(more, (length - (end - start)) // 2)
            first, last = (start - more, end + more) if circular else (max(0, start - more), min(end + more, length))
            found = self._edits(contig, carrier, first, last, length if circular else 0)
            edits = tuple(one for one in found if not any(one.start < cut < one.end for cut in (start, end)))
            stretch = Stretch(contig, first, last, start, end, edits)
            self._shared[carrier, window] = stretch, self.letters.stretches.name(stretch), frozenset(edits)
        return self._shared[carrier, window]

    def _edits(self, contig: str, carrier: Carrier, first: int, last: int, turn: int) -> Iterator[Edit]:
        """A haplotype's edits between two places, of which on a circular contig either may lie beyond its ends."""
        for ahead in (-turn, 0, turn) if turn else (0,):
            for one in self._haplotypes.on(contig, carrier, first - ahead, last - ahead):
                yield replace(one, start=one.start + ahead, end=one.end + ahead)


def _within(one: CarriedPlacement, window: Window, turn: int) -> Edit:
    """What an allele changes, at a place in its window.   turn: length of a circular contig; 0 for another."""
    edit = one.edit
    if edit.start < window.start:
        edit = replace(edit, start=edit.start + turn, end=edit.end + turn)
    if window.start <= edit.start and edit.end <= window.end:
        return edit
    # Written at the far end of a repeat that leaves the window: its left end is in it.
    return Edit(one.leftmost, one.leftmost + len(one.ref), one.alt.encode("ascii"))

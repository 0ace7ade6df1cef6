"""Whether a VCF stands on a reference at all, told by its first records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from genossm.core.errors import ContigNotFoundError, WrongAssemblyError
from genossm.genome import Genome
from genossm.variants.locate import Located
from genossm.variants.status import Status

ASSEMBLY_SAMPLE = 200
_CHECKED = (Status.REF_MISMATCH, Status.TOO_LONG, Status.OK)
_NAMED_CONTIGS = 5


class AssemblyCheck:
    """Looks at located alleles in the file's order, until it has seen enough.   name: the file's, for messages."""

    def __init__(self, name: str, genome: Genome) -> None:
        self._name, self._genome = name, genome
        self._checked = Counter[Status]()
        self._contigs: dict[str, None] = {}
        self._on_reference = self._unknown = False
        self.settled = False

    def add(self, contig: str, located: Iterable[Located]) -> None:
        """Take note of a record's alleles."""
        self._contigs.setdefault(contig)
        for one in located:
            self._on_reference = self._on_reference or one.status in (Status.OUT_OF_CONTIG, *_CHECKED)
            self._unknown = self._unknown or one.status is Status.CONTIG_UNKNOWN
            if one.status in _CHECKED and self._checked.total() < ASSEMBLY_SAMPLE:
                self._checked[one.status] += 1

    def settle(self, *, final: bool = False) -> None:
        """Judge, once the sample is whole or (`final`) the file has ended; later calls do nothing.

        Raises: WrongAssemblyError if over half of the alleles that could be checked differ from the reference;
        ContigNotFoundError at the end if the reference has none of the contigs.
        """
        checked = self._checked.total()
        if self.settled or (checked < ASSEMBLY_SAMPLE and not final):
            return
        self.settled = True
        wrong = self._checked[Status.REF_MISMATCH]
        if 2 * wrong > checked:
            raise WrongAssemblyError(
                f"REF of {wrong} of the first {checked} alleles of {self._name} that can be checked differs from "
                f"{self._genome.name}: most likely the VCF was called on another assembly (GRCh37 or GRCh38, "
                "say). Score it with the reference that it was called on. Nothing was written."
            )
        if self._unknown and not self._on_reference:
            names = list(self._contigs)
            more = f" and {len(names) - _NAMED_CONTIGS} more" if len(names) > _NAMED_CONTIGS else ""
            raise ContigNotFoundError(
                f"None of the contigs of {self._name} ({', '.join(names[:_NAMED_CONTIGS])}{more}) is in "
                f"{self._genome.name}, which has {', '.join(self._genome.contigs[:_NAMED_CONTIGS])}. "
                "Check the assembly, and that both are of the same species."
            )

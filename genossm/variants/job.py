"""One file on its way through the scorer: blocks of records are read, checked, scored or taken from a journal."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ReferenceMismatchError, TooManySkippedError
from genossm.variants.assembly import AssemblyCheck
from genossm.variants.info_fields import allele_covariates
from genossm.variants.journal import Journal
from genossm.variants.locate import Allele, Located, ScoredAllele
from genossm.variants.policy import FilePolicy
from genossm.variants.status import Status
from genossm.variants.summary import Summary
from genossm.variants.vcf_header import values_of
from genossm.variants.vcf_input import Record

if TYPE_CHECKING:
    from genossm.variants.personal import Personal
    from genossm.variants.scorer import Scorer


@dataclass(frozen=True)
class Progress:
    """How far a run is.   records: done, in part those of the block that is being scored.   total: None if unknown.
    resumed: records that an earlier run had finished.   haplotypes: run by this one; a masked copy is one of its own.
    """

    records: float
    total: int | None
    resumed: int
    haplotypes: int


class Outcome(NamedTuple):
    """What a file says of an allele.   numbers: in the order of the scorer's tags."""

    status: Status
    numbers: tuple[float | None, ...]


def locate(scorer: Scorer, record: Record) -> list[Located]:
    """What can be said of a record's alleles without the model."""
    told = allele_covariates(record, scorer.covariate_names)
    return [
        scorer.locate(Allele(record.contig, record.pos1, record.ref, alt, covariates))
        for alt, covariates in zip(record.alts or (None,), told)
    ]


class Job:
    """Reads blocks of records, checks them, scores them, counts.

    name: of the input, for messages.   block: records of one.   total: of all, if known.
    journal: what has been scored already, and keeps what is scored; None for neither.
    personal: says which haplotypes carry an allele, to a scorer that asks for them.
    """

    def __init__(
        self,
        scorer: Scorer,
        policy: FilePolicy,
        summary: Summary,
        check: AssemblyCheck,
        *,
        name: str,
        block: int,
        journal: Journal | None = None,
        total: int | None = None,
        progress: Callable[[Progress], None] | None = None,
        personal: Personal | None = None,
    ) -> None:
        self._scorer, self._policy, self._summary, self._check = scorer, policy, summary, check
        self._name, self._block, self._journal = name, block, journal
        self._total, self._progress, self._personal = total, progress, personal
        self._finished = 0 if journal is None else journal.blocks
        self._run = 0
        self._rows_a_record = 1.0

    def scored_records(self, records: Iterable[Record]) -> Iterator[tuple[Record, list[Outcome]]]:
        """`records` in their order with the numbers and statuses of their alleles.

        Raises: what `require_enough` does; ReferenceMismatchError under "e"; ResumeError.
        """
        rest, number = iter(records), 0
        while block := list(islice(rest, self._block)):
            located = [self._located(record) for record in block]
            self._check.settle()
            if len(block) < self._block:
                # The file has ended: what would stop it stops it before anything is run or written.
                self.require_enough()
            numbers = iter(self._numbers(number, block, [one for alleles in located for one in alleles]))
            for record, alleles in zip(block, located):
                yield record, [_outcome(one.status, next(numbers)) for one in alleles]
            number += 1
        if self._journal is not None:
            self._journal.require_end(number)
        self.require_enough()

    def _numbers(self, number: int, block: list[Record], located: list[Located]) -> NDArray[np.float64]:
        """(alleles, tags) of a block, NaN where there is none."""
        digest = "" if self._journal is None else _digest(block)
        if self._journal is not None and number < self._finished:
            numbers, measured = self._journal.take(number, digest, (len(located), len(self._scorer.tags)))
            self._scorer.restore_measured(measured)
            self._summary.resumed += len(block)
            self._summary.resumed_scores += sum(one.status is Status.OK for one in located)
        else:
            self._start(len(block))
            numbers = _as_array(self._scorer.score(located, self._on_rows), self._scorer)
            self._end(len(block))
            if self._journal is not None:
                self._journal.add(number, len(block), digest, numbers, self._scorer.measured_state())
        self._report(0)
        return numbers

    def require_enough(self) -> None:
        """Raise if too little was scored.

        Raises: WrongAssemblyError, ContigNotFoundError, TooManySkippedError.
        """
        self._check.settle(final=True)
        summary, limit = self._summary, self._policy.max_skip_frac
        skipped = summary.alleles - summary.scored
        if limit is not None and skipped > limit * summary.alleles:
            reasons = ", ".join(f"{count} {word}" for word, count in summary.skipped().items())
            raise TooManySkippedError(
                f"{skipped} of {summary.alleles} alleles of {self._name} have no score ({reasons}), more than the "
                f"{limit:g} that --max-skip-frac allows. Nothing was written."
            )

    def _located(self, record: Record) -> list[Located]:
        located = locate(self._scorer, record)
        self._summary.records += 1
        self._check.add(record.contig, located)
        if self._personal is not None:
            located = self._personal.of_record(record, located)
        for one in located:
            self._summary.statuses[one.status] += 1
            if one.status is Status.REF_MISMATCH and self._policy.check_ref == "e":
                raise ReferenceMismatchError(
                    f"{self._name}, {record.place}: REF of {record.contig}:{record.pos1} is {record.ref!r}, "
                    f"{self._scorer.genome.name} differs. Check the assembly, or pass --check-ref w to keep the record "
                    "unscored."
                )
        return located

    def _start(self, records: int) -> None:
        self._in_block, self._rows = records, 0
        self._report(records)

    def _on_rows(self, rows: int) -> None:
        self._run, self._rows = self._run + rows, self._rows + rows
        # How many rows a block will take is known when it is done: the one before it is the best guess.
        self._report(max(0.0, self._in_block - self._rows / self._rows_a_record))

    def _end(self, records: int) -> None:
        self._rows_a_record = max(self._rows / records, 1e-3)

    def _report(self, missing: float) -> None:
        if self._progress:
            done = self._summary.records - missing
            self._progress(Progress(done, self._total, self._summary.resumed, self._run))


def _outcome(status: Status, numbers: NDArray[np.float64]) -> Outcome:
    return Outcome(status, tuple(None if math.isnan(value) else value for value in numbers.tolist()))


def _as_array(scored: Sequence[ScoredAllele], scorer: Scorer) -> NDArray[np.float64]:
    tags = scorer.tags
    rows = [[math.nan if value is None else value for value in values_of(one, tags)] for one in scored]
    return np.array(rows, dtype=np.float64).reshape(len(scored), len(tags))


def _digest(block: Iterable[Record]) -> str:
    """Of a block's lines as they came."""
    found = hashlib.sha256()
    for record in block:
        found.update(b"\t".join(record.columns) + b"\n")
    return found.hexdigest()

"""A VCF or BCF file in, the same records with scores out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genossm.core.errors import ReferenceMismatchError, TooManySkippedError, UsageError
from genossm.core.provenance import Provenance
from genossm.genome import Genome
from genossm.variants.assembly import AssemblyCheck
from genossm.variants.locate import BLOCK, Allele, Located, ScoredAllele
from genossm.variants.options import ScoringOptions
from genossm.variants.regions import Regions
from genossm.variants.shards import Shard
from genossm.variants.status import Status
from genossm.variants.vcf_header import ScoringRun, scored_header, scored_info
from genossm.variants.vcf_input import Record, VcfInput, open_vcf
from genossm.variants.vcf_output import Format, VcfOutput, format_for, open_output

if TYPE_CHECKING:
    from genossm.models import SequenceModel
    from genossm.variants.scorer import Scorer

CheckRef = Literal["w", "e", "x"]


@dataclass(frozen=True)
class FilePolicy:
    """How a file is treated.

    output: VCF "v", bgzip "z" or BCF "b"; None goes by the output's name.   index: write one where there can be one.
    check_ref: at a REF that differs from the reference, "w" keeps and marks the record, "e" stops, "x" moves it,
    marked, to the file `skipped`.
    max_skip_frac: stop with exit code 3 if more than this share of the ALT alleles gets no score.
    force: replace the output, and scores of an earlier run in the input.
    regions, regions_file: where records are taken from, if not everywhere; see `Regions`.   shard: a piece of those.
    """

    output: Format | None = None
    index: bool = True
    check_ref: CheckRef = "w"
    max_skip_frac: float | None = None
    force: bool = False
    regions: tuple[str, ...] = ()
    regions_file: Path | None = None
    skipped: Path | None = None
    shard: Shard | None = None

    def __post_init__(self) -> None:
        if (self.check_ref == "x") != (self.skipped is not None):
            raise UsageError(
                "--check-ref x moves records whose REF differs from the reference to the file that --skipped names: "
                "give both, or neither."
            )
        if str(self.skipped) == "-":
            raise UsageError("--skipped takes the name of a file; standard output is for the scored records.")
        if self.max_skip_frac is not None and not 0 <= self.max_skip_frac <= 1:
            raise UsageError(f"A share of {self.max_skip_frac} to be skipped is not possible; wanted 0 to 1.")


@dataclass
class Summary:
    """What became of a file's records.

    statuses: ALT alleles by status; a record without ALT counts once.   moved: records in the file `skipped`.
    unsorted: so there is no index.
    """

    run: ScoringRun
    records: int = 0
    moved: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    seconds: float = 0.0
    unsorted: bool = False

    @property
    def alleles(self) -> int:
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        return self.statuses[Status.OK]

    def skipped(self) -> dict[str, int]:
        """Alleles without a score, by reason, in the order in which reasons are looked for."""
        return {
            status.value: self.statuses[status] for status in Status if status != Status.OK and self.statuses[status]
        }

    def line(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count:,} {word}" for word, count in self.skipped().items())
        rate = self.scored / self.seconds if self.seconds else 0.0
        return (
            f"{self.records:,} records, {self.alleles:,} alleles: {self.scored:,} scored, "
            f"{self.alleles - self.scored:,} not{f' ({reasons})' if reasons else ''}; "
            f"{self.seconds:.1f} s, {rate:,.0f} alleles/s"
            f"{f'; {self.moved:,} records moved aside' if self.moved else ''}"
            f"{'; the records are not sorted, so there is no index' if self.unsorted else ''}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        provenance = Provenance(
            command=self.run.command,
            model_digest=self.run.model_digest,
            reference_digest=self.run.reference_digest,
        )
        return {
            "records": self.records,
            "alleles": self.alleles,
            "scored": self.scored,
            "skipped": self.skipped(),
            "moved": self.moved,
            "seconds": round(self.seconds, 3),
            "alleles_per_second": round(self.scored / self.seconds, 3) if self.seconds else None,
            "options": self.run.options.as_dict(),
            "provenance": provenance.as_dict(),
        }


def score_file(
    model: SequenceModel,
    genome: Genome,
    source: str | Path,
    target: str | Path,
    options: ScoringOptions,
    policy: FilePolicy,
    *,
    command: str,
    regions: Regions | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the records of `source` to `target` as they came, each with a score or a reason for every ALT allele.

    source, target: paths, or "-".   command: for the header, without what may differ between equal runs.
    regions: where records are taken from; none given is everywhere.
    progress: called with (records read, haplotypes run) so far; a masked copy is one of its own.
    Raises: MethodError for a method that the model does not give; InputFileError for a file that is no VCF or BCF, is
    cut off, or has a malformed line; WrongAssemblyError if over half of the first 200 alleles that can be checked
    differ from the reference; ContigNotFoundError if the reference has none of the contigs; TooManySkippedError and
    ReferenceMismatchError as `policy` says; OutputExistsError. Nothing is left at `target` then.
    """
    from genossm.variants.scorer import Scorer  # brings torch, which whoever has a model has loaded already

    kind = format_for(target, policy.output)
    scorer = Scorer(model, genome, options, batch_size=batch_size)
    run = ScoringRun(model.digest(), genome.reference_digest, scorer.options, command, scorer.methods, scorer.tags)
    summary = Summary(run)
    started = time.perf_counter()
    with ExitStack() as files:
        vcf = files.enter_context(open_vcf(source))
        output = files.enter_context(open_output(target, kind, index=policy.index, force=policy.force))
        aside = files.enter_context(_open_aside(policy))
        check = AssemblyCheck(vcf.name, genome)
        records = regions.select(vcf.records) if regions else vcf.records
        if policy.shard is not None:
            records = islice(records, *_piece(source, scorer, regions, policy.shard, check))
        job = _Job(scorer, replace(vcf, records=records), policy, summary, check, progress)
        header = scored_header(vcf.header, run, name=vcf.name, replace=policy.force)
        if policy.shard is not None:
            header = (*header[:-1], policy.shard.mark(), header[-1])
        for one in filter(None, (output, aside)):
            one.header(header)
        for record, alleles in job.scored_records():
            line = record.with_info(scored_info(record.info, alleles, scorer.tags))
            moves = aside is not None and any(one.status is Status.REF_MISMATCH for one in alleles)
            summary.moved += moves
            (aside if aside is not None and moves else output).record(line, record.columns[0], record.pos1)
        job.require_enough()
        summary.seconds = time.perf_counter() - started
        summary.unsorted = policy.index and kind != "v" and str(target) != "-" and not output.sorted
    return summary


def _piece(
    source: str | Path, scorer: Scorer, regions: Regions | None, shard: Shard, check: AssemblyCheck
) -> tuple[int, int]:
    """First and last record of a piece; what the whole file says of its assembly is judged for each of them."""
    if str(source) == "-":
        raise UsageError(
            "--shard counts the records before it cuts them, which standard input allows once. Pass a file."
        )
    total = 0
    with open_vcf(source) as vcf:
        for record in regions.select(vcf.records) if regions else vcf.records:
            if not check.settled:
                check.add(record.contig, _locate(scorer, record))
                check.settle()
            total += 1
    check.settle(final=True)
    return shard.records(total)


def _locate(scorer: Scorer, record: Record) -> list[Located]:
    """What can be said of a record's alleles without the model."""
    return [scorer.locate(Allele(record.contig, record.pos1, record.ref, alt)) for alt in record.alts or (None,)]


def _open_aside(policy: FilePolicy) -> AbstractContextManager[VcfOutput | None]:
    """The file for records that are moved aside, if there is to be one."""
    if policy.skipped is None:
        return nullcontext()
    return open_output(policy.skipped, format_for(policy.skipped, None), index=policy.index, force=policy.force)


class _Job:
    """One file on its way through: reads blocks of records, checks them, scores them, counts."""

    def __init__(
        self,
        scorer: Scorer,
        vcf: VcfInput,
        policy: FilePolicy,
        summary: Summary,
        check: AssemblyCheck,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._scorer, self._vcf, self._policy, self._summary = scorer, vcf, policy, summary
        self._check, self._progress = check, progress
        self._run = 0

    def scored_records(self) -> Iterator[tuple[Record, list[ScoredAllele]]]:
        """Records in the file's order with the scores of their alleles."""
        while block := list(islice(self._vcf.records, BLOCK)):
            located = [self._located(record) for record in block]
            self._check.settle()
            if len(block) < BLOCK:
                # The file has ended: what would stop it stops it before anything is run or written.
                self.require_enough()
            scored = iter(self._scorer.score([one for alleles in located for one in alleles], self._on_progress))
            for record, alleles in zip(block, located):
                yield record, [next(scored) for _ in alleles]

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
                f"{skipped} of {summary.alleles} alleles of {self._vcf.name} have no score ({reasons}), more than the "
                f"{limit:g} that --max-skip-frac allows. Nothing was written."
            )

    def _located(self, record: Record) -> list[Located]:
        located = _locate(self._scorer, record)
        self._summary.records += 1
        self._check.add(record.contig, located)
        for one in located:
            self._summary.statuses[one.status] += 1
            if one.status is Status.REF_MISMATCH and self._policy.check_ref == "e":
                raise ReferenceMismatchError(
                    f"{self._vcf.name}, {record.place}: REF of {record.contig}:{record.pos1} is {record.ref!r}, "
                    f"{self._scorer.genome.name} differs. Check the assembly, or pass --check-ref w to keep the record "
                    "unscored."
                )
        return located

    def _on_progress(self, haplotypes: int) -> None:
        self._run += haplotypes
        if self._progress:
            self._progress(self._summary.records, self._run)

"""Tables in, the same rows with scores out: CSV, TSV and Parquet files, data frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genossm.core.errors import InputFileError, ReferenceMismatchError, TooManySkippedError
from genossm.genome import Genome
from genossm.variants.assembly import AssemblyCheck
from genossm.variants.files import Summary
from genossm.variants.locate import BLOCK, Allele, Located, ScoredAllele
from genossm.variants.methods import Tag
from genossm.variants.options import ScoringOptions
from genossm.variants.status import Status
from genossm.variants.table_columns import VariantColumns, find_columns
from genossm.variants.table_files import Block, Numbers, open_table, table_output
from genossm.variants.vcf_header import STATUS, ScoringRun, values_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from genossm.models import SequenceModel
    from genossm.variants.extras import Extras
    from genossm.variants.scorer import Scorer

_OURS = "GENOSSM_"


@dataclass(frozen=True)
class TablePolicy:
    """How a table is treated.

    columns: of "contig", "pos", "ref", "alt", "variant" to the column that is it, where its name does not say so.
    check_ref: at a REF that differs from the reference, "w" keeps the row and marks it, "e" stops.
    max_skip_frac: stop with exit code 3 if more than this share of the rows gets no score.
    force: replace the output, and columns of an earlier run in the input.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    check_ref: Literal["w", "e"] = "w"
    max_skip_frac: float | None = None
    force: bool = False


def score_table(
    model: SequenceModel,
    genome: Genome,
    source: str | Path,
    target: str | Path,
    options: ScoringOptions,
    policy: TablePolicy,
    *,
    command: str,
    batch_size: int | None = None,
    extras: Extras | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write every row of a table with its columns as they came, in its order, and the scores and status behind them.

    source, target: both CSV or TSV, or both Parquet.   extras: calibration.   progress: called with the number of rows
    done so far.
    New columns: one a number of the methods, named as in a VCF, empty where there is none, then GENOSSM_STATUS.
    Raises: InputFileError for a table that cannot be read, a row without a position, or columns of an earlier run;
    UsageError; WrongAssemblyError and ContigNotFoundError as for a VCF; TooManySkippedError and
    ReferenceMismatchError as `policy` says; OutputExistsError. Nothing is left at `target` then.
    """
    from genossm.variants.scorer import Scorer  # brings torch, which whoever has a model has loaded already

    scorer = Scorer(model, genome, options, batch_size=batch_size, extras=extras)
    run = ScoringRun(model.digest(), genome.reference_digest, scorer.options, command, scorer.methods, scorer.tags)
    summary = Summary(run)
    started = time.perf_counter()
    with open_table(source) as table:
        columns = find_columns(table.names, policy.columns, name=table.name)
        earlier = [name for name in table.names if name.startswith(_OURS)]
        if earlier and not policy.force:
            raise InputFileError(
                f"{table.name} holds scores of an earlier run ({', '.join(earlier)}). Pass --force to replace them, or "
                "score the original table."
            )
        with table_output(
            target,
            table,
            dropped=earlier,
            numbers=[tag.name for tag in scorer.tags],
            words=[STATUS],
            facts=_facts(summary),
            force=policy.force,
        ) as output:
            job = _Job(scorer, columns, policy, summary, AssemblyCheck(table.name, genome), table.name, table.names)
            for block, scored in job.scored(table.blocks(BLOCK)):
                output.write(block, *added_columns(scored, scorer.tags))
                if progress:
                    progress(summary.records)
            job.require_enough()
    summary.seconds = time.perf_counter() - started
    summary.measured = scorer.measured
    return summary


def _facts(summary: Summary) -> dict[str, Any]:
    """What a file that is not whole yet can say of how it was made."""
    return {key: value for key, value in summary.as_dict().items() if key in ("options", "provenance")}


def added_columns(
    scored: Sequence[ScoredAllele], tags: tuple[Tag, ...]
) -> tuple[dict[str, Numbers], dict[str, list[str]]]:
    """What a table gets: numbers by the tags' names, None where there is none; and the statuses."""
    rows = [values_of(one, tags) for one in scored]
    numbers: dict[str, Numbers] = {tag.name: [row[number] for row in rows] for number, tag in enumerate(tags)}
    return numbers, {STATUS: [one.status.value for one in scored]}


@dataclass
class _Job:
    scorer: Scorer
    columns: VariantColumns
    policy: TablePolicy
    summary: Summary
    check: AssemblyCheck
    name: str
    names: Sequence[str]

    def scored(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, list[ScoredAllele]]]:
        for block in blocks:
            values = [block.column(name) for name in self.columns.names]
            alleles = _told(self.columns.alleles(values, block.places), self._covariates(block))
            located = [self._located(self.scorer.locate(one), place) for one, place in zip(alleles, block.places)]
            self.check.settle()
            if len(located) < BLOCK and self.summary.records == len(located):
                # All of a small table is here: what would stop it stops it before anything is run.
                self.require_enough()
            yield block, self.scorer.score(located)

    def _covariates(self, block: Block) -> dict[str, Sequence[Any]]:
        names = [name for name in self.scorer.covariate_names if name in self.names]
        return {name: block.column(name) for name in names}

    def _located(self, one: Located, place: str) -> Located:
        self.summary.records += 1
        self.summary.statuses[one.status] += 1
        self.check.add(one.variant.contig, [one])
        if one.status is Status.REF_MISMATCH and self.policy.check_ref == "e":
            raise ReferenceMismatchError(
                f"{place}: REF of {one.variant.contig}:{one.variant.pos1} is {one.variant.ref!r}, "
                f"{self.scorer.genome.name} differs. Check the assembly, or pass --check-ref w to keep the row "
                "unscored."
            )
        return one

    def require_enough(self) -> None:
        """Raise if too little was scored."""
        self.check.settle(final=True)
        limit, rows = self.policy.max_skip_frac, self.summary.records
        skipped = rows - self.summary.scored
        if limit is not None and skipped > limit * rows:
            reasons = ", ".join(f"{count} {word}" for word, count in self.summary.skipped().items())
            raise TooManySkippedError(
                f"{skipped} of {rows} rows of {self.name} have no score ({reasons}), more than the {limit:g} that "
                "--max-skip-frac allows. Nothing was written."
            )


def _told(alleles: Iterator[Allele], columns: Mapping[str, Sequence[Any]]) -> Iterator[Allele]:
    """The alleles with what the covariates' columns say of each."""
    if not columns:
        yield from alleles
        return
    for allele, row in zip(alleles, zip(*columns.values())):
        yield replace(allele, covariates=dict(zip(columns, row)))


def scored_frame(scorer: Scorer, frame: DataFrame, columns: Mapping[str, str] | None = None) -> DataFrame:
    """A copy of a pandas DataFrame with the scores and the status of every row behind its columns.

    Rows, their order, index and columns stay; columns of an earlier run give way.
    Raises: InputFileError for columns that are missing, or a row whose position cannot be read.
    """
    names = [str(name) for name in frame.columns]
    found = find_columns(names, columns, name="the table")
    places = (f"row {number + 1} of the table" for number in range(len(frame)))
    told = {name: frame[name].tolist() for name in scorer.covariate_names if name in names}
    alleles = list(_told(found.alleles([frame[name].tolist() for name in found.names], places), told))
    scored = [
        one
        for start in range(0, len(alleles), BLOCK)
        for one in scorer.score([scorer.locate(allele) for allele in alleles[start : start + BLOCK]])
    ]
    numbers, words = added_columns(scored, scorer.tags)
    missing = float("nan")
    filled = {key: [missing if one is None else one for one in column] for key, column in numbers.items()}
    return frame.drop(columns=[name for name in names if name.startswith(_OURS)]).assign(**filled, **words)

"""All files of a run: the scored records, those moved aside, tables of alleles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from genossm.core.errors import InputFileError
from genossm.variants.allele_tables import AlleleTable, open_tables
from genossm.variants.policy import FilePolicy
from genossm.variants.status import Status
from genossm.variants.vcf_header import Outcome, ScoringRun, format_score, scored_info, values_of
from genossm.variants.vcf_input import Record
from genossm.variants.vcf_output import VcfOutput, format_for, open_output


class Files:
    """Takes records in their order.   moved: those put aside so far."""

    def __init__(
        self, run: ScoringRun, output: VcfOutput, aside: VcfOutput | None, tables: Sequence[AlleleTable]
    ) -> None:
        self._run, self._output, self._aside, self._tables = run, output, aside, tables
        self._replaced: frozenset[bytes] = frozenset()
        self.moved = 0

    @property
    def sorted(self) -> bool:
        """Whether the scored records are, so that they can have an index."""
        return self._output.sorted

    def header(self, lines: Iterable[bytes], replaced: Collection[bytes] = ()) -> None:
        """replaced: INFO fields of an earlier run, which records lose."""
        lines, self._replaced = tuple(lines), frozenset(replaced)
        for one in filter(None, (self._output, self._aside)):
            one.header(lines)

    def record(self, record: Record, alleles: Sequence[Outcome]) -> None:
        """Write a record with what is said of its alleles; tables hold what the scored file holds."""
        try:
            line = record.with_info(scored_info(record.info, alleles, self._run, self._replaced))
        except InputFileError as error:
            raise InputFileError(f"{record.columns[0].decode()}:{record.pos1}: {error}") from None
        if self._aside is not None and any(one.status is Status.REF_MISMATCH for one in alleles):
            self.moved += 1
            self._aside.record(line, record.columns[0], record.pos1)
            return
        self._output.record(line, record.columns[0], record.pos1)
        if self._tables:
            numbers = [[format_score(value) for value in values_of(one, self._run.fields)] for one in alleles]
            for table in self._tables:
                table.add(record.columns, [one.status for one in alleles], numbers)


@contextmanager
def open_files(
    target: str | Path, policy: FilePolicy, run: ScoringRun, facts: Mapping[str, object], *, force: bool
) -> Iterator[Files]:
    """The files that `policy` and the output `target` name, put in place when the block ends well.

    facts: where the numbers come from.   force: replace files that exist.
    """
    with ExitStack() as stack:
        kind = format_for(target, policy.output)
        output = stack.enter_context(open_output(target, kind, index=policy.index, force=force))
        aside = None
        if policy.skipped is not None:
            kind = format_for(policy.skipped, None)
            aside = stack.enter_context(open_output(policy.skipped, kind, index=policy.index, force=force))
        names = [tag.name for tag in run.fields]
        tables = stack.enter_context(open_tables(policy.tsv, policy.parquet, names, facts, force=force))
        yield Files(run, output, aside, tables)

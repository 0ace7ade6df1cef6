"""A VCF or BCF file in, the same records with scores out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.atomic import atomic_file
from genossm.core.errors import UsageError
from genossm.genome import Genome
from genossm.variants.assembly import AssemblyCheck
from genossm.variants.blocks import block_records
from genossm.variants.job import Job, Progress, locate
from genossm.variants.journal import Journal, open_journal
from genossm.variants.naming import Naming
from genossm.variants.options import ScoringOptions
from genossm.variants.policy import FilePolicy
from genossm.variants.regions import Regions
from genossm.variants.shards import Shard
from genossm.variants.summary import Summary
from genossm.variants.totals import count_records
from genossm.variants.vcf_header import ScoringRun, scored_header
from genossm.variants.vcf_input import Record, VcfInput, can_be_read_twice, open_vcf
from genossm.variants.vcf_output import format_for
from genossm.variants.writing import Files, open_files

if TYPE_CHECKING:
    from genossm.models import SequenceModel
    from genossm.variants.extras import Extras
    from genossm.variants.personal import Personal
    from genossm.variants.scorer import Scorer


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
    extras: Extras | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Write the records of `source` to `target` as they came, each with a score or a reason for every ALT allele.

    source, target: paths, or "-".   command: for the header, without what may differ between equal runs.
    regions: where records are taken from; none given is everywhere.   extras: calibration and heads.
    What is finished is kept in a journal beside `target` until the file is whole, unless `target` is "-" or `source` a
    stream; under `policy.resume` a run goes on from there, and its files are those of a run that nothing interrupted.
    Raises: MethodError for a method that the model does not give; InputFileError for a file that is no VCF or BCF, is
    cut off, or has a malformed line; WrongAssemblyError if over half of the first 200 alleles that can be checked
    differ from the reference; ContigNotFoundError if the reference has none of the contigs; TooManySkippedError and
    ReferenceMismatchError as `policy` says; OutputExistsError; ResumeError for a journal of another run. Nothing is
    left at `target` then.
    """
    # Brings torch, which whoever has a model has loaded already.
    from genossm.variants.haplotype_scorer import open_scorer

    format_for(target, policy.output)
    policy.require_resumable(source, target)
    scorer, personal = open_scorer(
        model, genome, options, source, policy.haplotypes, batch_size=batch_size, extras=extras
    )
    digests = model.digest(), genome.reference_digest
    run = ScoringRun(
        *digests, scorer.options, command, scorer.methods, scorer.tags, policy.haplotypes, Naming(policy.tag)
    )
    summary = Summary(run, haplotypes=None if personal is None else personal.as_dict())
    started = time.perf_counter()
    with ExitStack() as stack:
        vcf = stack.enter_context(open_vcf(source))
        check = AssemblyCheck(vcf.name, genome)
        block = block_records(scorer.options, scorer.methods)
        records, total = _records(vcf, source, scorer, regions, policy, check, block, counted=progress is not None)
        header = _header(vcf, run, policy)
        identity = _identity(run, vcf.header, policy, block, model, batch_size, personal, extras)
        journal = stack.enter_context(_open_journal(source, target, identity, policy))
        job = Job(
            scorer, policy, summary, check, name=vcf.name, block=block, journal=journal, total=total,
            progress=progress, personal=personal,
        )  # fmt: skip
        facts = {**run.facts(), **({"shard": policy.shard} if policy.shard else {})}
        with open_files(target, policy, run, facts, force=_replaces(policy, journal)) as written:
            written.header(header, run.naming.own_fields(vcf.header))
            for record, alleles in job.scored_records(records):
                written.record(record, alleles)
            _finish(summary, scorer, written, target, policy, started)
            if journal is not None:
                # From here on files that stand where ours belong are ours.
                journal.note(placing=True)
        if policy.summary is not None:
            with atomic_file(policy.summary, force=_replaces(policy, journal)) as temporary:
                temporary.write_text(json.dumps(summary.as_dict(), indent=2) + "\n")
    return summary


def _records(
    vcf: VcfInput,
    source: str | Path,
    scorer: Scorer,
    regions: Regions | None,
    policy: FilePolicy,
    check: AssemblyCheck,
    block: int,
    *,
    counted: bool,
) -> tuple[Iterable[Record], int | None]:
    """Those to be scored, and how many they are, where that is known.   counted: somebody wants to know."""
    records = regions.select(vcf.records) if regions else vcf.records
    if policy.shard is not None:
        first, last = _piece(source, scorer, regions, policy.shard, check, block)
        return islice(records, first, last), last - first
    # Records outside of regions are read and left: how many remain is known at the end.
    return records, count_records(source) if counted and not regions else None


def _header(vcf: VcfInput, run: ScoringRun, policy: FilePolicy) -> tuple[bytes, ...]:
    header = scored_header(vcf.header, run, name=vcf.name, replace=policy.force)
    return header if policy.shard is None else (*header[:-1], policy.shard.mark(), header[-1])


def _finish(
    summary: Summary, scorer: Scorer, written: Files, target: str | Path, policy: FilePolicy, started: float
) -> None:
    """What is known of a run when its last record is written."""
    kind = format_for(target, policy.output)
    summary.moved = written.moved
    summary.seconds = time.perf_counter() - started
    summary.measured = scorer.measured
    summary.unsorted = policy.index and kind != "v" and str(target) != "-" and not written.sorted


def _piece(
    source: str | Path,
    scorer: Scorer,
    regions: Regions | None,
    shard: Shard,
    check: AssemblyCheck,
    block: int,
) -> tuple[int, int]:
    """First and last record of a piece; what the whole file says of its assembly is judged for each of them."""
    if not can_be_read_twice(source):
        raise UsageError(
            "--shard counts the records before it cuts them, which a pipe or standard input allows once. Pass a file."
        )
    total = 0
    with open_vcf(source) as vcf:
        for record in regions.select(vcf.records) if regions else vcf.records:
            if not check.settled:
                check.add(record.contig, locate(scorer, record))
                check.settle()
            total += 1
    check.settle(final=True)
    return shard.records(total, block)


def _identity(
    run: ScoringRun,
    header: Sequence[bytes],
    policy: FilePolicy,
    block: int,
    model: SequenceModel,
    batch_size: int | None,
    personal: Personal | None,
    extras: Extras | None,
) -> dict[str, str]:
    """What a resumed run has to share with the one it resumes, so that not a bit of a score differs."""
    import torch

    device = next(model.parameters()).device
    facts: dict[str, object] = {
        **run.facts(),
        # What a quantile refers to is in its field's description.
        "numbers": "; ".join(tag.info_line() for tag in run.tags or ()),
        "header of the input": _sha256(b"\n".join(header)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "batch size": batch_size or "auto",
        "records of a block": block,
    }
    if policy.regions_file is not None:
        facts["regions file"] = _sha256(policy.regions_file.read_bytes())
    if policy.shard is not None:
        facts["shard"] = policy.shard
    if personal is not None:
        facts["alleles of the haplotypes"] = personal.haplotypes.digest()
    if extras is not None and extras.covariates is not None:
        facts["covariates"] = extras.covariates.digest
    return {key: str(value) for key, value in facts.items()}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _open_journal(
    source: str | Path, target: str | Path, identity: dict[str, str], policy: FilePolicy
) -> AbstractContextManager[Journal | None]:
    """The journal of a file; standard output has none, and a pipe or standard input none to go on from."""
    if str(target) == "-":
        return nullcontext()
    outputs = policy.written(target)
    return open_journal(
        Path(target), identity, outputs, resume=policy.resume, force=policy.force, keep=can_be_read_twice(source)
    )


def _replaces(policy: FilePolicy, journal: Journal | None) -> bool:
    """Whether files that exist may be replaced; those that a killed run had put in place already are its own."""
    return policy.force or (journal is not None and journal.placing)

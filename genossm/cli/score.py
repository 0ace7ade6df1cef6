"""`genossm score`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from genossm.cli.scoring import counting, extras_options, scoring_options

if TYPE_CHECKING:
    from genossm.variants.journal import Content
    from genossm.variants.opening import Request


class _ScoreOrMerge(click.Command):
    """`score`; `score merge` and `score --self-test` share nothing with it but the name."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["merge"]:
            return merge_command.make_context(f"{info_name} merge", args[1:], parent, **extra)
        if "--self-test" in args:
            return self_test_command.make_context(info_name, args, parent, **extra)
        typed = tuple(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[__name__] = typed
        return context


@contextmanager
def _resumable(output: str) -> Iterator[None]:
    """Says, when a run stops early, how to go on; Ctrl-C ends with exit code 130."""
    context = click.get_current_context()
    try:
        yield
    except BaseException as stop:
        from genossm.core import errors

        # The command itself was refused, and would be again; its error says what to do.
        refusals = errors.ResumeError | errors.OutputExistsError | errors.OutputInUseError | errors.UsageError
        left = None if output == "-" or isinstance(stop, refusals) else _left(output)
        if left is not None and left.blocks:
            typed = [word for word in context.meta[__name__] if word != "--resume"]
            command = shlex.join([*context.command_path.split(), "--resume", *typed])
            more = " with a larger --max-skip-frac" if isinstance(stop, errors.TooManySkippedError) else ""
            click.echo(f"genossm score: {left.records:,} records are finished. To go on{more}: {command}", err=True)
        elif isinstance(stop, KeyboardInterrupt | SystemExit):
            kept = "standard output has no journal" if output == "-" else "no block of records was finished"
            click.echo(f"genossm score: stopped; {kept}, so there is nothing to resume.", err=True)
        if isinstance(stop, KeyboardInterrupt):
            sys.exit(130)
        raise


def _left(output: str) -> Content | None:
    """What there is to go on from; a journal that cannot be read is none, and must not hide what stopped the run."""
    from genossm.core.errors import OutputError
    from genossm.variants.journal import read_journal

    try:
        return read_journal(output)
    except OutputError:
        return None


# What --variant has no use for.
_OF_FILES = (
    "output", "output_type", "write_index", "regions", "regions_file", "skipped", "haplotypes", "shard", "tag", "tsv",
    "parquet", "report", "report_standalone", "resume", "summary", "max_skip_frac", "force",
)  # fmt: skip


def _given(*names: str) -> list[str]:
    """Those of the options that were typed, as they are called."""
    context = click.get_current_context()
    options = {option.name: option.opts[0] for option in context.command.params}
    return [options[name] for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT]


@click.command()
@click.argument("pieces", nargs=-1, required=True, metavar="PIECE...", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="-", metavar="OUT", help="Where to write; - is standard output.  [default: -]")
@click.option("-O", "--output-type", type=click.Choice(["v", "z", "b"]), help="VCF, bgzip, BCF.  [default: by OUT]")
@click.option("-W/ ", "--write-index/--no-index", default=True, help="Index bgzip and BCF.  [default: write it]")
@click.option("--tag", default="GENOSSM", show_default=True, metavar="NAME", help="Fields that the tables are made of.")
@click.option("--tsv", type=click.Path(path_type=Path), metavar="FILE", help="The table of all pieces as well.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="The same table as Parquet.")
@click.option("--force", is_flag=True, help="Replace the output.")
def merge_command(
    pieces: tuple[Path, ...],
    output: str,
    output_type: Literal["v", "z", "b"] | None,
    write_index: bool,
    tag: str,
    tsv: Path | None,
    parquet: Path | None,
    force: bool,
) -> None:
    """Put the pieces that `genossm score --shard I/N` wrote together, in any order.

    The results are the files that one run without --shard writes.
    """
    from genossm.variants.shards import merge

    tables = {"tsv": tsv, "parquet": parquet}
    records = merge(pieces, output, output=output_type, index=write_index, force=force, tag=tag, **tables)
    click.echo(f"genossm score merge: {records:,} records of {len(pieces)} pieces", err=True)


@click.command()
@click.option("--self-test", is_flag=True, expose_value=False, help="Run this test.")
@click.option(
    "-m", "--model", metavar="MODEL", help="Shipped model, model directory, or Hub id.  [default: all shipped]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--write", is_flag=True, help="Keep the expected values in the model's directory instead of testing.")
@click.option("--force", is_flag=True, help="Replace values that are kept there.")
def self_test_command(model: str | None, device: str, write: bool, force: bool) -> None:
    """Compare what a device computes with what the model should say.

    Expected values come with the shipped models. Those of any other model are computed: in float64, letter by letter,
    on the CPU; --write keeps them in the model's directory (self_test.json), so that a later test trusts no part of
    the machine that is tested.

    Prints a table: what was compared, the largest error, and what is allowed (1e-3 nats for a sum of at most 1,024
    letters). Exit code 1 if the device computes other numbers. Takes up to a minute; every command that scores makes
    the shortest of these comparisons before it begins.
    """
    from genossm.variants.run import run_self_test, run_write_expected

    if write:
        click.echo(run_write_expected(model, force=force))
        return
    for line in run_self_test(model, device):
        click.echo(line)


@click.command(cls=_ScoreOrMerge)
@click.argument("vcf", required=False, metavar="[IN.vcf|IN.vcf.gz|IN.bcf|-]")
@scoring_options
@extras_options
@click.option("-o", "--output", default="-", metavar="OUT", help="Where to write; - is standard output.  [default: -]")
@click.option("-O", "--output-type", type=click.Choice(["v", "z", "b"]), help="VCF, bgzip, BCF.  [default: by OUT]")
@click.option("-W/ ", "--write-index/--no-index", default=True, help="Index bgzip and BCF.  [default: write it]")
@click.option("-r", "--regions", multiple=True, metavar="REGION,...", help="Records there alone, as in 20:1,000-2,000.")
@click.option(
    "-R",
    "--regions-file",
    type=click.Path(path_type=Path),
    metavar="FILE.bed",
    help="Records in these intervals alone.",
)
@click.option(
    "--variant", "variants", multiple=True, metavar="'20:123:A>G'", help="Score this one; quoted; may be repeated."
)
@click.option(
    "--check-ref",
    default="w",
    show_default=True,
    type=click.Choice(["w", "e", "x"]),
    help="REF differs from the reference: w keeps and marks the record, e stops, x moves it to --skipped.",
)
@click.option(
    "--skipped", type=click.Path(path_type=Path), metavar="FILE", help="VCF or BCF file for what --check-ref x moves."
)
@click.option(
    "--haplotypes", metavar="SAMPLE", help="Score each allele on the haplotypes of this sample that carry it."
)
@click.option("--self-test", is_flag=True, expose_value=False, help="Test the device, with -m or all shipped models.")
@click.option("--shard", metavar="I/N", help="Piece I of N of the file alone; `genossm score merge` joins them.")
@click.option("--tag", default="GENOSSM", show_default=True, metavar="NAME", help="What our INFO fields begin with.")
@click.option(
    "--tsv", type=click.Path(path_type=Path), metavar="FILE", help="A table as well, one row an ALT allele of OUT."
)
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="The same table as Parquet.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="A page of igv-reports as well, over the 100 records that the model finds least likely; whoever opens it "
    "without a network sees the table and no genome browser.",
)
@click.option(
    "--report-standalone", is_flag=True, help="Put the browser's code, igv.js, into --report; needs a network now."
)
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run has left in OUT.journal.")
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE.json", help="Counts, rates, digests as JSON.")
@click.option("--max-skip-frac", type=float, metavar="F", help="Exit code 3 if a larger share has no score.")
@click.option("--force", is_flag=True, help="Replace the output, and scores that the input holds already.")
def command(
    vcf: str | None,
    request: Request,
    output: str,
    output_type: Literal["v", "z", "b"] | None,
    write_index: bool,
    regions: tuple[str, ...],
    regions_file: Path | None,
    variants: tuple[str, ...],
    check_ref: Literal["w", "e", "x"],
    skipped: Path | None,
    haplotypes: str | None,
    shard: str | None,
    tag: str,
    tsv: Path | None,
    parquet: Path | None,
    report: Path | None,
    report_standalone: bool,
    resume: bool,
    summary: Path | None,
    max_skip_frac: float | None,
    force: bool,
) -> None:
    """Score the variants of a VCF or BCF file.

    The same records come out in the same order, each ALT allele with its scores, or with a reason in
    INFO/GENOSSM_STATUS.

    llr, for causal models: INFO/GENOSSM_LLR, ALT minus REF in nats (natural logarithm), summed over the same number of
    letters of either haplotype from their first difference on. Positive: the model finds ALT likelier.

    mlm, for masked models: INFO/GENOSSM_LLR, ALT minus REF in nats, of the bases themselves behind [MASK]; for a change
    of length, of the 8 bases on either side of it on each haplotype. Positive: the model finds ALT likelier.

    embedding, for both: distances between the mean hidden states with ALT and with REF, 0 where they are the same.
    INFO/GENOSSM_EMB_L2 is Euclidean, in the unit of the hidden states, GENOSSM_EMB_COS is 1 - cosine, without unit,
    both over the allele and 768 bases on either side; GENOSSM_EMB_WINDOW_L2 and GENOSSM_EMB_WINDOW_COS are the same
    over the whole window.

    HEAD, the name of a variant-effect head (`genossm head`): INFO/GENOSSM_HEAD in capitals; the header says its unit.
    With a calibration (`genossm calibrate`), quantiles: INFO/GENOSSM_Q, the share of background alleles of the same
    kind that score at or below, and others such as GENOSSM_EMB_L2_Q.

    --haplotypes SAMPLE compares ALT with REF on each haplotype of the sample that carries the allele, with the sample's
    other alleles of that haplotype made in the window; the mean if several do. Heads see these haplotypes too, though
    they were trained on the reference. NOT_CARRIED: none does. UNPHASED: one
    does, and the genotype does not say which.

    A run that was stopped, by Ctrl-C, by a signal or by a full disk, has kept its finished blocks of records in
    OUT.journal: the same command with --resume goes on from there, and its files are those of a run that nothing
    stopped. One process at a time writes an output.
    """
    if (vcf is None) == (not variants):
        raise click.UsageError("Wanted a VCF or BCF file (- for standard input) or --variant, one of the two.")
    if variants and (refused := _given(*_OF_FILES)):
        raise click.UsageError(
            f"--variant prints a table to standard output; these go with a VCF or BCF file: {', '.join(refused)}."
        )
    if variants and check_ref == "x":
        raise click.UsageError("--check-ref x moves records of a VCF or BCF file; with --variant it is w or e.")
    from genossm.variants import FilePolicy
    from genossm.variants.run import run_score_file, run_score_variants
    from genossm.variants.shards import Shard
    from genossm.variants.vcf_output import format_for

    if vcf is None:
        click.echo("\n".join(run_score_variants(request, variants, check_ref=check_ref)))
        return
    if write_index and _given("write_index") and (output == "-" or format_for(output, output_type) == "v"):
        raise click.UsageError("-W indexes files of bgzip and BCF. Name one, as in -o OUT.vcf.gz, or leave -W out.")
    if report_standalone and report is None:
        raise click.UsageError("--report-standalone is about the page of --report FILE.html; give both.")
    if report is not None:
        from genossm.variants.igv_page import refuse_igv_page

        refuse_igv_page(output, report, force=force)
    policy = FilePolicy(
        output=output_type,
        index=write_index,
        check_ref=check_ref,
        max_skip_frac=max_skip_frac,
        force=force,
        regions=regions,
        regions_file=regions_file,
        skipped=skipped,
        shard=Shard.parse(shard) if shard else None,
        resume=resume,
        summary=summary,
        haplotypes=haplotypes,
        tag=tag,
        tsv=tsv,
        parquet=parquet,
    )
    with counting("records") as count, _resumable(output):
        progress = count and (lambda now: count(now.records, now.total, now.resumed))
        result = run_score_file(request, vcf, output, policy, progress=progress)
    click.echo(f"genossm score: {result.line()}", err=True)
    if report is not None:
        from genossm.variants.igv_page import write_igv_page

        shown = write_igv_page(output, request.reference, report, tag=tag, standalone=report_standalone, force=force)
        click.echo(f"genossm score: {report} shows {shown:,} records", err=True)

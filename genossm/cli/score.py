"""`genossm score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource


def _horizon(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:  # noqa: ARG001
    if value == "full":
        return None
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter(f"{value!r}: wanted a number of letters or `full`.")
    return int(value)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line with count and rate on stderr while it lasts, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    text = TextColumn("{task.fields[records]:,} records, {task.completed:,} haplotypes, {task.fields[rate]:,.0f}/s")
    with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("scoring", total=None, records=0, rate=0.0)

        def update(records: int, haplotypes: int) -> None:
            seconds = bar.tasks[0].elapsed or 1.0
            bar.update(task, completed=haplotypes, records=records, rate=haplotypes / seconds)

        yield update


class _ScoreOrMerge(click.Command):
    """`score`, and `score merge`, which shares nothing with it but the name."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["merge"]:
            return merge_command.make_context(f"{info_name} merge", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command()
@click.argument("pieces", nargs=-1, required=True, metavar="PIECE...", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="-", metavar="OUT", help="Where to write; - is standard output.  [default: -]")
@click.option("-O", "--output-type", type=click.Choice(["v", "z", "b"]), help="VCF, bgzip, BCF.  [default: by OUT]")
@click.option("-W/ ", "--write-index/--no-index", default=True, help="Index bgzip and BCF.  [default: write it]")
@click.option("--force", is_flag=True, help="Replace the output.")
def merge_command(
    pieces: tuple[Path, ...], output: str, output_type: Literal["v", "z", "b"] | None, write_index: bool, force: bool
) -> None:
    """Put the pieces that `genossm score --shard I/N` wrote together, in any order.

    The result is the file that one run without --shard writes.
    """
    from genossm.variants.shards import merge

    records = merge(pieces, output, output=output_type, index=write_index, force=force)
    click.echo(f"genossm score merge: {records:,} records of {len(pieces)} pieces", err=True)


@click.command(cls=_ScoreOrMerge)
@click.argument("vcf", required=False, metavar="[IN.vcf|IN.vcf.gz|IN.bcf|-]")
@click.option("-f", "--fasta-ref", "reference", required=True, metavar="REF", help="FASTA (plain, bgzip) or store.")
@click.option("-m", "--model", required=True, metavar="MODEL", help="Model directory, or Hub id.")
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
@click.option("--variant", "variants", multiple=True, metavar="20:123:A>G", help="Score this one; may be repeated.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="llr|mlm|embedding",
    help="How to score; may be repeated, or several with commas.  [default: llr for causal, mlm for masked models]",
)
@click.option("--context", default=8192, show_default=True, type=int, help="Bases of the window around an allele.")
@click.option(
    "--horizon", default="512", show_default=True, callback=_horizon, help="Letters that llr compares; or full."
)
@click.option("--both-strands", is_flag=True, help="The mean of both strands instead of the plus strand alone.")
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
@click.option("--shard", metavar="I/N", help="Piece I of N of the file alone; `genossm score merge` joins them.")
@click.option("--batch-size", type=int, metavar="N", help="Alternatives in one pass.  [default: by their length]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE.json", help="Counts, rates, digests as JSON.")
@click.option("--max-skip-frac", type=float, metavar="F", help="Exit code 3 if a larger share has no score.")
@click.option("--force", is_flag=True, help="Replace the output, and scores that the input holds already.")
@click.pass_context
def command(
    ctx: click.Context,
    vcf: str | None,
    reference: str,
    model: str,
    output: str,
    output_type: Literal["v", "z", "b"] | None,
    write_index: bool,
    regions: tuple[str, ...],
    regions_file: Path | None,
    variants: tuple[str, ...],
    methods: tuple[str, ...],
    context: int,
    horizon: int | None,
    both_strands: bool,
    check_ref: Literal["w", "e", "x"],
    skipped: Path | None,
    shard: str | None,
    batch_size: int | None,
    device: str,
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
    """
    if (vcf is None) == (not variants):
        raise click.UsageError("Wanted a VCF or BCF file (- for standard input) or --variant, one of the two.")
    if variants and (regions or regions_file or skipped or shard or check_ref == "x"):
        raise click.UsageError(
            "--variant names what is scored; -r, -R, --shard and --skipped go with a VCF or BCF file."
        )
    if variants and output != "-":
        raise click.UsageError("--variant prints a table to standard output; -o goes with a VCF or BCF file.")
    from genossm.variants import FilePolicy, ScoringOptions
    from genossm.variants.run import run_score_file, run_score_variants
    from genossm.variants.shards import Shard

    options = ScoringOptions(context, horizon, both_strands, methods)
    horizon_given = ctx.get_parameter_source("horizon") is not ParameterSource.DEFAULT
    if vcf is None:
        lines = run_score_variants(
            model,
            reference,
            variants,
            options,
            check_ref=check_ref,
            batch_size=batch_size,
            device=device,
            horizon_given=horizon_given,
        )
        click.echo("\n".join(lines))
        return
    piece = Shard.parse(shard) if shard else None
    policy = FilePolicy(
        output_type, write_index, check_ref, max_skip_frac, force, regions, regions_file, skipped, piece
    )
    with _progress() as progress:
        result = run_score_file(
            model,
            reference,
            vcf,
            output,
            options,
            policy,
            summary_path=summary,
            batch_size=batch_size,
            device=device,
            progress=progress,
            horizon_given=horizon_given,
        )
    click.echo(f"genossm score: {result.line()}", err=True)

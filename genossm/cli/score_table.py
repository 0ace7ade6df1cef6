"""`genossm score-table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from genossm.cli.scoring import counting, extras_options, scoring_options

if TYPE_CHECKING:
    from genossm.variants.opening import Request


@click.command()
@click.argument("table", metavar="IN.csv|IN.tsv|IN.parquet")
@click.option("-o", "--output", required=True, metavar="OUT", help="Table to write, of the input's kind.")
@click.option(
    "--columns",
    metavar="KEY=COLUMN,...",
    help="Which column is contig, pos, ref, alt (or variant), where names do not say so: contig=CHR,pos=BP.",
)
@scoring_options
@extras_options
@click.option(
    "--check-ref",
    default="w",
    show_default=True,
    type=click.Choice(["w", "e"]),
    help="REF differs from the reference: w keeps and marks the row, e stops.",
)
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE.json", help="Counts, rates, digests as JSON.")
@click.option("--max-skip-frac", type=float, metavar="F", help="Exit code 3 if a larger share has no score.")
@click.option("--force", is_flag=True, help="Replace the output, and columns of scores that the input holds already.")
def command(
    table: str,
    output: str,
    columns: str | None,
    request: Request,
    check_ref: Literal["w", "e"],
    summary: Path | None,
    max_skip_frac: float | None,
    force: bool,
) -> None:
    """Score the variants of a table, one a row: CSV, TSV (both may be gzipped) or Parquet.

    The same rows come out in the same order with the same columns, and behind them the fields that `genossm score`
    writes into a VCF: GENOSSM_LLR and others in the sign and unit that its help says, empty where there is no score,
    and GENOSSM_STATUS, which is OK or the reason.

    Columns are known by name, in any case: contig (or chrom, chromosome, chr), pos (1-based), ref and alt; or one
    column called variant, as in 20:1000226:A>T.
    """
    from genossm.variants.run_table import run_score_table
    from genossm.variants.score_table import TablePolicy
    from genossm.variants.table_columns import parse_columns

    policy = TablePolicy(parse_columns(columns), check_ref, max_skip_frac, force)
    with counting("rows") as progress:
        result = run_score_table(request, table, output, policy, summary_path=summary, progress=progress)
    click.echo(f"genossm score-table: {result.line()}", err=True)

"""`genossm calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genossm.cli.scoring import counting, heads_options, scoring_options

if TYPE_CHECKING:
    from genossm.variants.opening import Request


@click.command()
@click.argument("background", metavar="IN.vcf|IN.vcf.gz|IN.bcf")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="New, or to be added to.  [default: calibration.safetensors in the model's directory]",
)
@click.option(
    "--info-key", metavar="KEY", help="INFO field that chooses the alleles, such as AF; one number an allele."
)
@click.option("--min", "least", default=0.0, show_default=True, help="Smallest value of the INFO field.")
@click.option("--max", "most", default=1.0, show_default=True, help="Largest value of the INFO field.")
@click.option("--scored", is_flag=True, help="The file holds scores of the same settings already: take these.")
@scoring_options
@heads_options
@click.option("--force", is_flag=True, help="Replace what the file holds of the same settings.")
def command(
    background: str,
    output: Path | None,
    info_key: str | None,
    least: float,
    most: float,
    scored: bool,
    request: Request,
    force: bool,
) -> None:
    """Keep the scores of a background set, such as common variants, with a model.

    Scores then also come as GENOSSM_Q: the share (0 to 1) of background alleles of the same kind (SNV, insertion,
    deletion, other) that score at or below. It keeps the sign of GENOSSM_LLR: near 0, the model finds the change less
    likely than nearly all of the background. Other numbers have a field of their own, such as GENOSSM_EMB_L2_Q.

    A calibration serves equal settings alone: model, reference, method, context, horizon and strands. It is a table of
    up to 3,073 points a kind and number; quantiles are exact for small backgrounds and at both ends, and nowhere off by
    more than 0.0005. A kind with under 100 alleles is left out.
    """
    from genossm.variants.run_calibrate import Background, run_calibrate

    chosen = Background(background, info_key, least, most, scored)
    with counting("alleles") as progress:
        summary = run_calibrate(request, chosen, output, force=force, progress=progress)
    click.echo(f"genossm calibrate: {summary.line()}", err=True)

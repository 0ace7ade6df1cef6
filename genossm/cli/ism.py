"""`genossm ism`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genossm.cli.scoring import counting, extras_options, scoring_options

if TYPE_CHECKING:
    from genossm.variants.opening import Request


@click.command()
@click.argument("region", metavar="REGION")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT.parquet", help="Table.")
@click.option("--map", "heat_map", type=click.Path(path_type=Path), metavar="FILE.png", help="Heat map: PNG, SVG, PDF.")
@click.option("--logo", type=click.Path(path_type=Path), metavar="FILE.png", help="Logo: PNG, SVG, PDF.")
@scoring_options
@extras_options
@click.option("--force", is_flag=True, help="Replace the outputs.")
def command(region: str, output: Path, heat_map: Path | None, logo: Path | None, request: Request, force: bool) -> None:
    """Score every substitution of every base of REGION, as in 20:3,300,001-3,300,060 (saturation mutagenesis).

    The table has a row a base and letter: contig, pos (1-based), ref, alt, GENOSSM_LLR (ALT minus REF in nats, positive
    where the model finds ALT likelier; 0 for the letter that stands there) and GENOSSM_STATUS. It is written piece by
    piece, so a region may be as long as a contig; pictures show up to 2,000 bases.

    The heat map shows every score. The logo's letters are as tall as what replacing them loses on average, in nats:
    they stand where the model finds the reference likelier than its replacements, and hang where it does not. With a
    region on the minus strand, 20:3,300,001-3,300,060(-), the pictures read that strand; --both-strands is what the
    model reads.
    """
    from genossm.variants.run_ism import IsmOutputs, run_ism

    with counting("bases") as progress:
        bases = run_ism(request, region, IsmOutputs(output, heat_map, logo), force=force, progress=progress)
    click.echo(f"genossm ism: {bases:,} bases, {3 * bases:,} substitutions: {output}", err=True)

"""`genossm evaluate compressors`."""

from __future__ import annotations

import click


@click.command()
@click.option("-f", "-g", "--genome", required=True, type=click.Path(), help="FASTA file or genome store.")
@click.option("--region", "regions", required=True, multiple=True, metavar="REGION", help="What is compressed.")
def command(genome: str, regions: tuple[str, ...]) -> None:
    """Bits per base of xz, a general compressor, on letters and on packed bases: a floor that knows nothing of DNA."""
    from genossm.evaluation.compressors import run_compressors

    for found in run_compressors(genome, regions):
        click.echo(f"{found.name}\t{found.bits:.4f}\t{found.bases}")

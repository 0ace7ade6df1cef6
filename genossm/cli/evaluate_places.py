"""`genossm evaluate places`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("-f", "-g", "--genome", required=True, type=click.Path(), help="FASTA file or genome store.")
@click.option("--train", required=True, multiple=True, metavar="REGION", help="Words are counted here.")
@click.option("--region", "regions", required=True, multiple=True, metavar="REGION", help="Bases there are classified.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .npz file to write.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(genome: str, train: tuple[str, ...], regions: tuple[str, ...], output: Path, force: bool) -> None:
    """Tell bases inside repeats from those outside, and how far back the last copy of what stands before them is.

    In a repeat is a base that a word of 24 bases covers which occurs ten times or more in the training sequence, both
    strands counted together. Prints how many bases there are of each kind.
    """
    from genossm.evaluation.places import run_evaluate_places

    places = run_evaluate_places(genome, train=train, regions=regions, output=output, force=force)
    for name, number in places.numbers().items():
        click.echo(f"{name}\t{number}")

"""`genossm report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--run", "runs", multiple=True, type=click.Path(path_type=Path), help="Output directory of `genossm train`."
)
@click.option("--bases", multiple=True, type=click.Path(path_type=Path), help="JSON file of `genossm evaluate bases`.")
@click.option(
    "--variants", multiple=True, type=click.Path(path_type=Path), help="JSON file of `genossm evaluate variants`."
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--title", default="genossm report", show_default=True, help="Headline of the page.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    runs: tuple[Path, ...],
    bases: tuple[Path, ...],
    variants: tuple[Path, ...],
    output: Path,
    title: str,
    force: bool,
) -> None:
    """One self-contained HTML page with the tables and pictures of earlier results; prints its path.

    --run, --bases and --variants may be repeated, once a model: the first of each belong together, then the second.
    """
    from genossm.evaluation.report import write_report

    click.echo(write_report(output, runs=runs, bases=bases, variants=variants, title=title, force=force))

"""`genossm evaluate labelled-table`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE.json...", type=click.Path(path_type=Path))
@click.option(
    "--head",
    "heads",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A head trained on a table of one of the sets; repeatable.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NAME",
    help="NAME.json, NAME.md, NAME.png.",
)
@click.option("--no-picture", is_flag=True, help="Draw nothing (matplotlib is not needed then).")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(files: tuple[Path, ...], heads: tuple[Path, ...], output: Path, no_picture: bool, force: bool) -> None:
    """Set what `genossm evaluate labelled` and `genossm head train` found side by side; prints the Markdown.

    Correlations are turned so that above 0 is the expected way round, where a set says which that is.
    """
    from genossm.evaluation.labelled_page import markdown, write_labelled_table

    table = write_labelled_table(files, output, heads=heads, picture=not no_picture, force=force)
    click.echo(markdown(table), nl=False)

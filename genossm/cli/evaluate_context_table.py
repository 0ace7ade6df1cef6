"""`genossm evaluate context-table`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE.npz...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NAME",
    help="NAME.json, NAME.md, NAME-*.png.",
)
@click.option("--no-picture", is_flag=True, help="Draw nothing (matplotlib is not needed then).")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(files: tuple[Path, ...], output: Path, no_picture: bool, seed: int, force: bool) -> None:
    """Set what `genossm evaluate context` found side by side, with intervals and differences; prints the Markdown.

    Causal and masked methods make a table each, since their figures are of different tasks.
    """
    from genossm.evaluation.context_report import markdown, write_context_table

    comparisons = write_context_table(files, output, picture=not no_picture, seed=seed, force=force)
    click.echo(markdown(comparisons), nl=False)

"""`genossm head list`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("-m", "--model", required=True, metavar="MODEL", help="Model directory, or Hub id.")
@click.option("--heads", type=click.Path(path_type=Path), metavar="FOLDER", help="Heads beside the model's own.")
def command(model: str, heads: Path | None) -> None:
    """List a model's heads: name, kind, figure of nested cross-validation, and what it was trained on."""
    from genossm.variants.heads.listing import list_heads

    for line in list_heads(model, heads):
        click.echo(line)

"""`genossm convert`: another author's checkpoint becomes a model directory."""

from __future__ import annotations

import click


@click.command("convert")
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(), metavar="DIR", help="Model directory to write.")
@click.option(
    "--from",
    "layout",
    type=click.Choice(["auto", "mamba-ssm", "transformers", "caduceus"]),
    default="auto",
    show_default=True,
    help="Whose layout it is; auto tells by config.json.",
)
@click.option("--allow-pickle", is_flag=True, help="Read .bin and .pt files (tensors only). Trust the source first.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
def command(source: str, output: str, layout: str, allow_pickle: bool, force: bool) -> None:
    """Import another author's Mamba checkpoint as a genossm model directory.

    SOURCE is a directory with config.json and weights, or a Hub id such as owner/name. Prints the new directory.
    """
    from genossm.models import convert

    model = convert(source, output, layout=layout, allow_pickle=allow_pickle, force=force)
    click.echo(
        f"{model.num_parameters():,} weights, {model.config.n_layer} layers of width {model.config.d_model}, "
        f"digest {model.digest()[:12]}",
        err=True,
    )
    click.echo(output)

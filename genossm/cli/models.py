"""`genossm models`: what comes with the package."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the models that come with genossm: name, objective, weights, size, what it is.

    Their names stand wherever a command takes a model, as in `genossm score -m NAME`.
    """
    if ctx.invoked_subcommand is not None:
        return
    from genossm.models.shipped import shipped_models

    for model in shipped_models():
        size = f"{model.size / 1e6:.1f} MB"
        click.echo("\t".join((model.name, model.objective, str(model.parameters), size, model.summary)))


@command.command()
@click.argument("name")
def card(name: str) -> None:
    """Print a model's card: data, budget, figures, limits, how to reproduce it."""
    from genossm.models.shipped import shipped_model

    click.echo(shipped_model(name).card, nl=False)


@command.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN/model")
@click.option("--name", required=True, help="What it will be called.")
@click.option("-f", "-g", "--genome", required=True, type=click.Path(), help="The genome it was trained on.")
@click.option(
    "--region", "regions", required=True, multiple=True, metavar="REGION", help="Held out; rounding is judged."
)
@click.option("--context", default=1024, show_default=True, type=click.IntRange(min=4), help="Bases a window there.")
@click.option("--summary", required=True, help="A sentence that says what it is.")
@click.option("--config", "config_file", required=True, help="Configuration file of the run, as the card names it.")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Markdown of `genossm evaluate context-table`, or further sections. Repeatable.",
)
@click.option("--limit", "limits", multiple=True, help="A further sentence under Limits.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where shipped models are.  [default: in the package]")
@click.option("--device", default="cpu", show_default=True, help="Where rounding is judged.")
@click.option("--force", is_flag=True, help="Replace one of that name.")
def ship(
    source: Path,
    name: str,
    genome: str,
    regions: tuple[str, ...],
    context: int,
    summary: str,
    config_file: str,
    evaluations: tuple[Path, ...],
    limits: tuple[str, ...],
    folder: Path | None,
    device: str,
    force: bool,
) -> None:
    """For maintainers: turn a run's best model into one that comes with the package, and write its card.

    Weights are rounded to bfloat16; what that changes is measured and written into the card.
    """
    from genossm.evaluation import shipping

    directory = shipping.ship(
        source,
        name,
        genome,
        regions=regions,
        context=context,
        summary=summary,
        config_file=config_file,
        evaluation=shipping.read_evaluation(evaluations),
        limits=limits,
        folder=folder or shipping.FOLDER,
        device=device,
        force=force,
    )
    click.echo(shipping.describe(directory))
    click.echo(f"Then keep what it should say: genossm score --self-test -m {directory} --write", err=True)

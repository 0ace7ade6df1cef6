"""`genossm evaluate bases`."""

from __future__ import annotations

from pathlib import Path

import click


def _orders(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:  # noqa: ARG001
    if value is None:
        return None
    try:
        return tuple(int(order) for order in value.split(",") if order.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r}: wanted orders separated by commas, as in 0,3,8,11.") from None


def _context(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:  # noqa: ARG001
    if value == "whole":
        return None
    if not value.isascii() or not value.isdigit():
        raise click.BadParameter(f"{value!r}: wanted a number of bases or `whole`.")
    return int(value)


@click.command()
@click.option("-m", "--model", required=True, help="Shipped model, model directory, or Hub id.")
@click.option("-f", "-g", "--genome", required=True, type=click.Path(), help="FASTA file or genome store.")
@click.option("--train", required=True, multiple=True, metavar="REGION", help="Markov models count here.")
@click.option("--validation", required=True, multiple=True, metavar="REGION", help="They are tuned here.")
@click.option("--test", required=True, multiple=True, metavar="REGION", help="Everything is judged here.")
@click.option(
    "--markov",
    "orders",
    callback=_orders,
    help="Orders of the Markov models, 0 to 12.  [default: 0,3,8,11; two-sided for a masked model: 0,4,8,12]",
)
@click.option(
    "--context",
    default="8192",
    show_default=True,
    callback=_context,
    help="Bases a window, each base seeing at least half of them before it (masked models: a quarter on either side); "
    "or `whole`: one pass over each region.",
)
@click.option(
    "--mask-fraction", type=float, help="Share of the bases that a masked model has to fill in. [default: 0.15]"
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--block", default=10_000, show_default=True, type=click.IntRange(min=1), help="Bases a bootstrap block.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap, and of what is masked.")
@click.option("--device", help="Such as cuda or cpu.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    model: str,
    genome: str,
    train: tuple[str, ...],
    validation: tuple[str, ...],
    test: tuple[str, ...],
    orders: tuple[int, ...] | None,
    context: int | None,
    mask_fraction: float | None,
    output: Path,
    block: int,
    seed: int,
    device: str | None,
    force: bool,
) -> None:
    """Bits per base of a model and of Markov models on exactly the same bases, as a table and a JSON file.

    The model's own objective decides: a causal model is set against Markov models that read what it has read, a masked
    one, asked for the bases behind [MASK], against two-sided ones.
    """
    from genossm.evaluation.bases import run_evaluate_bases

    report = run_evaluate_bases(
        model,
        genome,
        train=train,
        validation=validation,
        test=test,
        orders=orders,
        context=context,
        output=output,
        mask_fraction=mask_fraction,
        block=block,
        seed=seed,
        device=device,
        force=force,
    )
    click.echo(report.table())
    click.echo(report.sentence())

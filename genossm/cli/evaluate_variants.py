"""`genossm evaluate variants`."""

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


@click.command()
@click.argument("scored", type=click.Path(path_type=Path), metavar="SCORED.vcf.gz")
@click.option("-f", "--fasta-ref", "reference", required=True, metavar="REF", help="FASTA (plain, bgzip) or store.")
@click.option("--region", required=True, metavar="REGION", help="Variants that start here are judged.")
@click.option("--markov-train", multiple=True, metavar="REGION", help="Markov models count here; none: no comparison.")
@click.option(
    "--markov-validation",
    multiple=True,
    metavar="REGION",
    help="Their strengths and order are chosen here.  [default: the last tenth of each training region]",
)
@click.option(
    "--markov",
    "orders",
    callback=_orders,
    help="Orders, 0 to 12.  [default: 0,3,8,11; two-sided for a masked model's scores: 0,4,8,12]",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--block", default=10_000, show_default=True, type=click.IntRange(min=1), help="Bases a bootstrap block.")
@click.option("--replicates", default=2000, show_default=True, type=click.IntRange(min=1), help="Of the bootstrap.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    scored: Path,
    reference: str,
    region: str,
    markov_train: tuple[str, ...],
    markov_validation: tuple[str, ...],
    orders: tuple[int, ...] | None,
    output: Path,
    block: int,
    replicates: int,
    seed: int,
    force: bool,
) -> None:
    """Scores by allele frequency, and AUROC of common (AF of at least 5 %) against rare alleles (at most 0.2 %).

    Beside them the scores of a Markov model for the same alleles, by the same definition: one of the preceding bases
    for a causal model's scores, one of both flanks for a masked model's. Frequencies are INFO/AF as it stands.
    Intervals come from a bootstrap over blocks of positions, since neighbouring alleles are alike.
    """
    from genossm.evaluation.variant_evaluate import run_evaluate_variants

    report = run_evaluate_variants(
        scored,
        reference,
        region=region,
        markov_train=markov_train,
        markov_validation=markov_validation,
        orders=orders,
        output=output,
        block=block,
        replicates=replicates,
        seed=seed,
        force=force,
    )
    click.echo(report.table())
    click.echo("")
    click.echo(report.sentence())

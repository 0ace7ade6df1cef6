"""`genossm head train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from genossm.cli.scoring import counting, reading_options

if TYPE_CHECKING:
    from genossm.variants.opening import Request


@click.command()
@click.argument("labelled", metavar="IN.tsv|IN.parquet|IN.vcf.gz", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="Of the head: small letters, digits and _.")
@click.option("--label", required=True, metavar="COLUMN", help="Column, or INFO field, that is learnt.")
@click.option(
    "--kind",
    default="logistic",
    show_default=True,
    type=click.Choice(["logistic", "svm", "ridge"]),
    help="logistic and svm (linear) tell two classes apart, ridge predicts a number.",
)
@click.option("--positive", multiple=True, metavar="WORD", help="The label's word of the positive class; repeatable.")
@click.option("--at-least", type=float, metavar="X", help="Labels from X on are the positive class, ...")
@click.option("--at-most", type=float, metavar="Y", help="... up to Y the negative; between them alleles are left out.")
@click.option("--covariate", "told", multiple=True, metavar="COLUMN", help="A column or INFO field; repeatable.")
@click.option("--features", default="llr,distances,difference,reference", show_default=True, help="What the head sees.")
@click.option("--flank", default=64, show_default=True, help="Bases on either side whose hidden states are averaged.")
@click.option("--block", "stretch", default=100_000, show_default=True, help="Bases that folds never divide.")
@click.option("--group", metavar="COLUMN", help="A column that says instead what folds never divide, a gene say.")
@click.option("--folds", "outer", default=5, show_default=True, help="Outer folds, which judge.")
@click.option("--inner-folds", "inner", default=4, show_default=True, help="Inner folds, which choose the penalty.")
@click.option("--seed", default=0, show_default=True, help="Of the folds.")
@click.option("--columns", metavar="KEY=COLUMN,...", help="As in `genossm score-table`.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The head's folder.  [default: heads/NAME in the model's directory]",
)
@reading_options
@click.option("--force", is_flag=True, help="Replace a head of that name.")
def command(
    labelled: Path,
    name: str,
    label: str,
    kind: Literal["logistic", "svm", "ridge"],
    positive: tuple[str, ...],
    at_least: float | None,
    at_most: float | None,
    told: tuple[str, ...],
    features: str,
    flank: int,
    stretch: int,
    group: str | None,
    outer: int,
    inner: int,
    seed: int,
    columns: str | None,
    output: Path | None,
    request: Request,
    force: bool,
) -> None:
    """Train a variant-effect head on labelled variants, over a model that stays as it is.

    A head is linear. It sees the model's log-likelihood ratio and its size, the distances between the mean hidden
    states around the allele with ALT and with REF, their difference, REF's mean, and covariates: numbers, or words such
    as a tissue. It is judged by nested cross-validation, whose folds are made of whole stretches of the genome, and
    then fitted on everything. --method NAME uses it, under the same --context, --horizon and --both-strands.
    """
    from genossm.variants.heads.features import FeatureSpec
    from genossm.variants.heads.labelled import LabelColumn
    from genossm.variants.heads.training import HeadPlan, run_train_head
    from genossm.variants.table_columns import parse_columns

    plan = HeadPlan(
        name,
        kind,
        LabelColumn(label, positive, at_least, at_most),
        told,
        FeatureSpec(tuple(part.strip() for part in features.split(",")), flank),
        group,
        stretch,
        outer,
        inner,
        seed,
        parse_columns(columns),
    )
    with counting("alleles") as progress:
        trained = run_train_head(request, labelled, plan, output, force=force, progress=progress)
    for line in trained.lines():
        click.echo(f"genossm head train: {line}", err=True)

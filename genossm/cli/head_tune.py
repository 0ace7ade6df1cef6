"""`genossm head tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from genossm.cli.scoring import reading_options

if TYPE_CHECKING:
    from genossm.variants.opening import Request


@click.command()
@click.argument("labelled", metavar="IN.tsv|IN.parquet|IN.vcf.gz", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="Of the head: small letters, digits and _.")
@click.option("--label", required=True, metavar="COLUMN", help="Column, or INFO field, that is learnt.")
@click.option("--kind", default="logistic", show_default=True, type=click.Choice(["logistic", "ridge"]))
@click.option("--positive", multiple=True, metavar="WORD", help="The label's word of the positive class; repeatable.")
@click.option("--at-least", type=float, metavar="X", help="Labels from X on are the positive class, ...")
@click.option("--at-most", type=float, metavar="Y", help="... up to Y the negative; between them alleles are left out.")
@click.option("--flank", default=64, show_default=True, help="Bases on either side whose hidden states are averaged.")
@click.option("--block", "stretch", default=100_000, show_default=True, help="Bases that are held out as a whole.")
@click.option("--held-out", default=0.2, show_default=True, help="Share of the stretches that judge.")
@click.option("--epochs", default=3, show_default=True, help="Passes over the pairs.")
@click.option("--batch", default=16, show_default=True, help="Pairs a step.")
@click.option("--learning-rate", default=1e-4, show_default=True, help="Of the model's weights.")
@click.option("--head-rate", default=1e-2, show_default=True, help="Of the head's weights.")
@click.option("--seed", default=0, show_default=True, help="Of stretches and order.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="MODEL_OUT", help="New model.")
@reading_options
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    labelled: Path,
    name: str,
    label: str,
    kind: Literal["logistic", "ridge"],
    positive: tuple[str, ...],
    at_least: float | None,
    at_most: float | None,
    flank: int,
    stretch: int,
    held_out: float,
    epochs: int,
    batch: int,
    learning_rate: float,
    head_rate: float,
    seed: int,
    output: Path,
    request: Request,
    force: bool,
) -> None:
    """Fine-tune a copy of a model on pairs of windows with the reference and with the alternative allele.

    All weights learn together with a linear head on the mean hidden states around the allele. The result is a model
    directory of its own with the head inside; the language model in it is no longer the one that it was. It is judged
    on stretches of the genome that training never saw.
    """
    from genossm.evaluation.tuned_head import TuningPlan, run_tune_head
    from genossm.training.pairs import TuningConfig
    from genossm.variants.heads.labelled import LabelColumn

    classes = kind == "logistic"
    config = TuningConfig(epochs, batch, learning_rate, head_rate, flank=flank, classes=classes, seed=seed)
    chosen = LabelColumn(label, positive, at_least, at_most)
    plan = TuningPlan(name, kind, chosen, stretch, held_out, config)
    for line in run_tune_head(request, labelled, plan, output, force=force).lines():
        click.echo(f"genossm head tune: {line}", err=True)

"""`genossm evaluate labelled`."""

from __future__ import annotations

from pathlib import Path

import click

from genossm.cli.scoring import counting


@click.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), metavar="SETS.yaml", help="Labelled sets.")
@click.option("-m", "--model", "models", multiple=True, metavar="[NAME=]MODEL", help="Repeatable.")
@click.option("--counted", metavar="REF", help="Judge order-12 count tables of this genome besides.")
@click.option("--train", multiple=True, metavar="REGION", help="They count here.")
@click.option(
    "--validation",
    multiple=True,
    metavar="REGION",
    help="They are tuned here.  [default: the last tenth of each training region]",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--batch-size", type=int, metavar="N", help="Alternatives in one pass.  [default: by their length]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    config: Path,
    models: tuple[str, ...],
    counted: str | None,
    train: tuple[str, ...],
    validation: tuple[str, ...],
    output: Path,
    batch_size: int | None,
    device: str,
    force: bool,
) -> None:
    """Judge scores by labelled variants: AUROC of classes, Spearman's correlation with measurements, with intervals.

    The configuration lists sets (see configs/evaluate/labelled.yaml). An area above 0.5 is an effect told the expected
    way round: a low GENOSSM_LLR, or a large distance, in the class with an effect. Intervals come from a bootstrap over
    blocks of positions. Other columns, such as a conservation score, and with --counted order-12 tables of the bases
    before an allele and on both sides of it, are judged on the same alleles.
    """
    from genossm.evaluation.labelled_report import CountedOn, run_evaluate_labelled

    with counting("alleles") as progress:
        report = run_evaluate_labelled(
            config,
            models,
            output,
            batch_size=batch_size,
            device=device,
            counted=None if counted is None else CountedOn(counted, train, validation),
            force=force,
            progress=progress,
        )
    click.echo(report.table())

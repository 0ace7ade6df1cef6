"""`genossm evaluate context`."""

from __future__ import annotations

from pathlib import Path

import click


def _contexts(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:  # noqa: ARG001
    found: list[int] = []
    for part in filter(None, value.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(first) < 2:
            raise click.BadParameter(f"{part!r}: wanted numbers of bases such as 1024, or doublings such as 16-8192.")
        number = int(first)
        found.append(number)
        while dash and number * 2 <= int(last):
            number *= 2
            found.append(number)
    return tuple(dict.fromkeys(found))


@click.command()
@click.option("-m", "--model", metavar="MODEL", help="Shipped model, model directory, or Hub id.")
@click.option(
    "--baseline",
    metavar="NAME",
    help="Instead of a model: markov-K, two-sided-K (K up to 12), copy (window only), or copy-trained.",
)
@click.option("-f", "-g", "--genome", required=True, type=click.Path(), help="FASTA file or genome store.")
@click.option("--region", "regions", required=True, multiple=True, metavar="REGION", help="Bases there are judged.")
@click.option(
    "--context",
    "contexts",
    default="16-8192",
    show_default=True,
    callback=_contexts,
    help="Bases a window, separated by commas; A-B is A, 2A, 4A, ... up to B. A base sees half to all of them before "
    "it (masked models: a quarter or more on either side).",
)
@click.option("--train", multiple=True, metavar="REGION", help="A baseline counts here.")
@click.option("--validation", multiple=True, metavar="REGION", help="A baseline is tuned here.")
@click.option(
    "--places",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `genossm evaluate places` wrote: sums are kept apart by kind of place.",
)
@click.option("--keep", default="", callback=_contexts, help="Contexts whose value at every base is kept besides.")
@click.option("--name", help="What to call it in tables.  [default: the model's or baseline's own]")
@click.option("--mask-fraction", type=float, help="Share of the bases that masked models fill in. [default: 0.15]")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .npz file to write.")
@click.option("--block", default=10_000, show_default=True, type=click.IntRange(min=1), help="Bases a bootstrap block.")
@click.option("--seed", default=0, show_default=True, help="Of what is masked.")
@click.option("--device", help="Such as cuda or cpu.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(
    model: str | None,
    baseline: str | None,
    genome: str,
    regions: tuple[str, ...],
    contexts: tuple[int, ...],
    train: tuple[str, ...],
    validation: tuple[str, ...],
    places: Path | None,
    keep: tuple[int, ...],
    name: str | None,
    mask_fraction: float | None,
    output: Path,
    block: int,
    seed: int,
    device: str | None,
    force: bool,
) -> None:
    """Bits per base of a model, or of a baseline, from windows of several lengths, on the same bases each time.

    Writes sums over blocks, for `genossm evaluate context-table` to set beside those of other methods, and prints the
    figures of the whole.
    """
    from genossm.evaluation.context import run_evaluate_context

    found = run_evaluate_context(
        genome,
        regions=regions,
        contexts=contexts,
        output=output,
        model_path=model,
        baseline=baseline,
        train=train,
        validation=validation,
        name=name,
        places_path=places,
        keep=keep,
        mask_fraction=mask_fraction,
        block=block,
        seed=seed,
        device=device,
        force=force,
        progress=lambda text: click.echo(text, err=True),
    )
    for context, bits in zip(found.contexts, found.bits()):
        click.echo(f"{context}\t{bits:.4f}")

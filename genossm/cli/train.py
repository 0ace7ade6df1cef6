"""`genossm train`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML file of the run.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one key, as in run.max_steps=100.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="last",
    type=click.Choice(["last", "auto"]),
    help="Go on from the last checkpoint of this run; `--resume auto` begins the run if there is none.",
)
@click.option("--force", is_flag=True, help="Replace the run in the output directory.")
@click.option(
    "--allow-changes", is_flag=True, help="Resume although optimizer, schedule or clipping are others than before."
)
@click.option("--estimate", is_flag=True, help="Print what a step would take of memory, and train nothing.")
def command(
    config_path: Path,
    settings: tuple[str, ...],
    resume: str | None,
    force: bool,
    allow_changes: bool,
    estimate: bool,
) -> None:
    """Train a model and print the directory that it was written to.

    Paths in the configuration are relative to the current directory.
    """
    from genossm.parallel.processes import is_first
    from genossm.training import load_train_config, train

    config = load_train_config(config_path, settings)
    if estimate:
        from genossm.training.estimate import estimate as estimate_memory

        click.echo("\n".join(estimate_memory(config).lines()))
        return
    again = "auto" if resume == "auto" else resume is not None
    result = train(config, resume=again, force=force, allow_changes=allow_changes)
    if is_first() and result.model.exists():
        click.echo(result.model)

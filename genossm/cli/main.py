"""Entry point: finds commands by name without importing them, prints user errors in one line."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import click

from genossm.cli.lazy import Commands, lazy_group
from genossm.core.errors import GenossmError
from genossm.core.provenance import package_version

COMMANDS: Commands = {
    "calibrate": ("genossm.cli.calibrate", "Keep a background's scores with a model, for quantiles."),
    "convert": ("genossm.cli.convert", "Import another author's Mamba checkpoint as a genossm model directory."),
    "evaluate": ("genossm.cli.evaluate", "Measure bits per base, or scores against allele frequency."),
    "genome": ("genossm.cli.genome", "Build and inspect genome stores."),
    "head": ("genossm.cli.head", "Train, fine-tune and list variant-effect heads."),
    "ism": ("genossm.cli.ism", "Score every substitution of a region: a table, a heat map, a logo."),
    "models": ("genossm.cli.models", "List the pretrained models that come with genossm, and their cards."),
    "report": ("genossm.cli.report", "Write a self-contained HTML page from results."),
    "score": ("genossm.cli.score", "Score the variants of a VCF or BCF file."),
    "score-table": ("genossm.cli.score_table", "Score the variants of a CSV, TSV or Parquet table."),
    "train": ("genossm.cli.train", "Train a model from a configuration file."),
}


@lazy_group(COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_version(), prog_name="genossm")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train on, and score variants in, DNA a megabase at a time with state space models."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors become a line on stderr and an exit code (1; 2 usage; 3 skipped; 4 resume)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        # A terminated command unwinds like an interrupted one, so that temporary files are removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main.main(args=arguments, prog_name="genossm", standalone_mode=True)
    except GenossmError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"genossm: error: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)

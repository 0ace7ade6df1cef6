"""Entry point: finds commands by name without importing them, prints user errors in one line."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Sequence

import click

from genossm.core.errors import GenossmError
from genossm.core.provenance import package_version

# Name, module (attribute `command`), help line. The help stands here so that `genossm --help` loads no torch.
COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("genossm.cli.convert", "Import another author's Mamba checkpoint as a genossm model directory."),
    "evaluate": ("genossm.cli.evaluate", "Measure bits per base, or scores against allele frequency."),
    "genome": ("genossm.cli.genome", "Build and inspect genome stores."),
    "report": ("genossm.cli.report", "Write a self-contained HTML page from results."),
    "score": ("genossm.cli.score", "Score the variants of a VCF or BCF file."),
    "train": ("genossm.cli.train", "Train a model from a configuration file."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[cmd_name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_version(), prog_name="genossm")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train on, and score variants in, DNA a megabase at a time with state space models."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors become one line on stderr and an exit code (1; 2 usage; 3 skipped)."""
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

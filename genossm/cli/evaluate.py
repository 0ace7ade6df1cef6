"""`genossm evaluate`: its subcommands, imported when they are called."""

from __future__ import annotations

import importlib

import click

# Name, module (attribute `command`), help line.
COMMANDS: dict[str, tuple[str, str]] = {
    "bases": ("genossm.cli.evaluate_bases", "Bits per base beside Markov models on the same bases."),
    "variants": ("genossm.cli.evaluate_variants", "Scores beside allele frequency."),
}


class LazyGroup(click.Group):
    """A group that loads a subcommand's module only for that subcommand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[cmd_name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup)
def command() -> None:
    """Measure bits per base, or scores against allele frequency."""

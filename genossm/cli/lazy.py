"""Groups whose commands are imported when they are called, so that help answers without torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import click

Commands = Mapping[str, tuple[str, str]]
"""Name to module (which has the attribute `command`) and help line."""


class LazyGroup(click.Group):
    """A click group over `table`."""

    def __init__(self, *arguments: Any, table: Commands, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.table:
            return None
        return importlib.import_module(self.table[cmd_name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(self.table.items())])


def lazy_group(table: Commands, **options: Any) -> Callable[[Callable[..., Any]], LazyGroup]:
    """Decorator: the function becomes a group over `table`; its docstring is the help."""

    def decorate(function: Callable[..., Any]) -> LazyGroup:
        return click.group(cls=LazyGroup, table=table, **options)(function)

    return decorate

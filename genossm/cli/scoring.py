"""Options that all commands that score share, and their bar."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def horizon_letters(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:  # noqa: ARG001
    """A number of letters; None for `full`."""
    if value == "full":
        return None
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter(f"{value!r}: wanted a number of letters or `full`.")
    return int(value)


def context_bases(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:  # noqa: ARG001
    """A number of bases; None for `whole`."""
    if value == "whole":
        return None
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter(f"{value!r}: wanted a number of bases or `whole`.")
    return int(value)


def batch_rows(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:  # noqa: ARG001
    """A number of alternatives; None for `auto`."""
    if value == "auto":
        return None
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter(f"{value!r}: wanted a number of alternatives or `auto`.")
    return int(value)


_METHOD = click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="llr|mlm|embedding|HEAD",
    help="How to score; may be repeated, or several with commas.  [default: llr for causal, mlm for masked models]",
)
_OPTIONS = (
    click.option(
        "-f", "--fasta-ref", "reference", required=True, metavar="REF", help="FASTA (plain, bgzip), 2bit or store."
    ),
    click.option("-m", "--model", required=True, metavar="MODEL", help="Shipped model, model directory, or Hub id."),
    _METHOD,
    click.option(
        "--context",
        default="8192",
        show_default=True,
        callback=context_bases,
        metavar="N|whole",
        help="Bases of the window around an allele; or the whole contig.",
    ),
    click.option(
        "--horizon",
        default="512",
        show_default=True,
        callback=horizon_letters,
        metavar="N|full",
        help="Letters that llr compares; or full, a quarter of the context.",
    ),
    click.option(
        "--neighbourhood",
        default=1024,
        show_default=True,
        type=int,
        metavar="N",
        help="Bases on either side of an allele that mlm, embedding (768 at least) and heads read anew in windows that "
        "are over 8 times as long; the rest comes from one pass over the reference, and --summary says what that "
        "leaves out.",
    ),
    click.option("--exact", is_flag=True, help="Read whole windows anew for every allele."),
    click.option("--both-strands", is_flag=True, help="The mean of both strands instead of the plus strand alone."),
    click.option(
        "--batch-size",
        default="auto",
        show_default=True,
        callback=batch_rows,
        metavar="N",
        help="Alternatives in one pass; auto goes by their length and the device.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
)


_CALIBRATION = click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Quantiles by this file of `genossm calibrate`.  [default: the model directory's own, for equal settings]",
)
_HEADS = (
    click.option("--heads", type=click.Path(path_type=Path), metavar="FOLDER", help="Heads beside the model's own."),
    click.option(
        "--covariates",
        type=click.Path(path_type=Path),
        metavar="TABLE",
        help="What heads are told, by variant.  [default: INFO fields, or the table's own columns, of that name]",
    ),
)


def scoring_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds the options and hands the function one `request` instead of them."""
    return _handing_request(function, _OPTIONS)


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what reads alleles by the model's own method and offers no choice."""
    return _handing_request(function, tuple(option for option in _OPTIONS if option is not _METHOD))


def _handing_request(function: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(
        *arguments: Any,
        reference: str,
        model: str,
        methods: tuple[str, ...] = (),
        context: int | None,
        horizon: int | None,
        neighbourhood: int,
        exact: bool,
        both_strands: bool,
        batch_size: int | None,
        device: str,
        calibration: Path | None = None,
        heads: Path | None = None,
        covariates: Path | None = None,
        **others: Any,
    ) -> Any:
        from genossm.variants.opening import Request
        from genossm.variants.options import ScoringOptions

        given = click.get_current_context().get_parameter_source("horizon") is not ParameterSource.DEFAULT
        scoring = ScoringOptions(context, horizon, both_strands, methods, neighbourhood, exact)
        request = Request(model, reference, scoring, given, batch_size, device, calibration, heads, covariates)
        return function(*arguments, request=request, **others)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def heads_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator, below `scoring_options`: where heads are, and what they are told; it goes into the `request`."""
    for option in reversed(_HEADS):
        function = option(function)
    return function


def extras_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator, below `scoring_options`: all that scores may need beside a model; it goes into the `request`."""
    return _CALIBRATION(heads_options(function))


@contextmanager
def counting(what: str) -> Iterator[Callable[..., None] | None]:
    """A function of how many are done, of how many in all where that is known, and of those that an earlier run had
    done: a line on stderr with the rate, and the time left, if that is a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, began = bar.add_task(what, total=None, said="loading"), [0.0]

        def update(done: float, total: int | None = None, before: int = 0) -> None:
            # The clock runs from the first call, when models are loaded and kernels about to be compiled.
            began[0] = began[0] or time.monotonic()
            said = progress_text(what, done, total, before, time.monotonic() - began[0])
            bar.update(task, completed=done, total=total, said=said)

        yield update


def progress_text(what: str, done: float, total: int | None, before: int, seconds: float) -> str:
    """How far a run is, how fast, and how long it will take, as far as that can be told.

    before: of `done`, what an earlier run had done.   seconds: of this run.
    """
    rate = (done - before) / seconds if seconds > 0 else 0.0
    parts = [f"{done:,.0f}{'' if total is None else f' of {total:,}'} {what}"]
    if rate > 0:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2f}/s")
        if total is not None:
            parts.append(f"{timedelta(seconds=round(max(0.0, total - done) / rate))} left")
    return ", ".join(parts)

"""One look for all pictures, and their way into a page."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.atomic import atomic_file
from genossm.core.errors import GenossmError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with any colour vision. The model is always the same blue.
MODEL = "#0072B2"
BASELINE = "#E69F00"
QUIET = ("#999999", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")
INK = "#333333"
_KINDS = ("png", "svg", "pdf")


def new_figure(width: float = 7.0, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure of `width` × `height` inches with one plain axis, drawn without a display.

    Raises: GenossmError if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GenossmError("Pictures need matplotlib. Install it with: pip install 'genossm[plot]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def require_one_each(what: str, **lengths: int) -> None:
    """Raises: UsageError if the lengths differ, naming them all."""
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(f"Unequal lengths: {counts}; wanted one {what}.")


def require_named(model: str, names: Collection[str]) -> None:
    """Raises: UsageError if `model`, which is to be highlighted, is none of the names."""
    if model not in names:
        raise UsageError(f"The model to highlight is {model!r}; wanted one of {', '.join(map(repr, names)) or 'none'}.")


def to_svg(figure: Figure, *, title: str) -> str:
    """The figure as an SVG element that stands inside an HTML page; `title` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    element = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    # A fixed size would overflow a narrow window; the viewBox keeps the proportions.
    element = re.sub(r' (?:width|height)="[^"]+"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{_escape(title)}"', 1)


def to_png(figure: Figure, *, dots_per_inch: int = 150) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, force: bool = False, dots_per_inch: int = 150) -> None:
    """Write a PNG, SVG or PDF file, by the name's end, whole or not at all; the same figure gives the same bytes.

    Raises: UsageError for another end; OutputExistsError without `force`.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _KINDS:
        raise UsageError(
            f"{path}: a figure is written as PNG, SVG or PDF; wanted a name that ends in .png, .svg or .pdf."
        )
    dates = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    with atomic_file(path, force=force) as temporary:
        figure.savefig(temporary, format=kind, dpi=dots_per_inch, metadata=dates.get(kind))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")

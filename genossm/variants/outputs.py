"""Where a command may write: no file that it reads, no file twice, none that is there already without --force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import UsageError


def refuse_outputs(written: Sequence[Path], sources: Sequence[str | Path], *, force: bool) -> None:
    """Raise before anything is opened what one of the outputs `written` would do to another file.

    sources: what is read; "-" is no file.
    Raises: UsageError for an output that is an input, even under `force`, or another output; OutputExistsError.
    """
    read = {_place(source) for source in sources if str(source) != "-" and os.path.lexists(source)}
    places: set[str] = set()
    for path in written:
        place = _place(path)
        if place in read:
            raise UsageError(f"Input and output are both {path}. Choose another output.")
        refuse_overwrite(path, force=force)
        if place in places:
            raise UsageError(f"Two outputs are both {path}. Choose another for one of them.")
        places.add(place)


def _place(path: str | Path) -> str:
    return os.path.realpath(path)

"""`--force`: the run that stands in the output directory is kept until the new one has something to show for it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from genossm.core.atomic import readable_write_errors

logger = logging.getLogger(__name__)


@contextmanager
def replacing(directory: Path) -> Iterator[Callable[[], None]]:
    """Move what stands at `directory` aside; yield what deletes it for good, for when the new run is worth more.

    On any exception before that, Ctrl-C too, the new run goes and the old one comes back. A process that is killed
    outright leaves the old one under a hidden name, `.replaced-…`, beside the directory. Yields what does nothing if
    nothing is there.
    """
    # Of a link the run that it leads to, so that the link stays one.
    target = directory.resolve()
    aside = target.with_name(f".replaced-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    if not target.exists():
        yield _nothing
        return
    with readable_write_errors(target, "The run in it is as it was; choose another output.directory."):
        os.rename(target, aside)
    # Now, as the kernel gives no time to say it when memory is full.
    logger.warning("The old run is kept as %s until the new one has a checkpoint.", aside)
    try:
        yield lambda: shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        if aside.exists():
            _put_back(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    try:
        os.rename(aside, target)
    except OSError as error:
        # What ended the new run is the error that counts.
        logger.warning("The run that was to be replaced is in %s: %s.", aside, error.strerror)
        return
    logger.warning("The new run had no checkpoint yet; the one that it was to replace is back in %s.", target)


def _nothing() -> None:
    pass

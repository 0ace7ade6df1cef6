"""Write to a temporary sibling, rename when whole: a reader never sees half an artefact."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genossm.core.errors import OutputExistsError


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Raise `OutputExistsError` if `path` exists and `force` is not set."""
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists already. Choose another output, or pass --force to replace it.")


def _temporary_sibling(path: Path) -> Path:
    # Suffixes are kept at the end, since pysam and Zarr choose their format by them.
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _require_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputExistsError(
            f"Cannot write {path}: the folder {path.parent} does not exist. Create it, or choose another output."
        )


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` on success, delete it on any error.

    The rename is atomic within a file system, so two writers leave one whole file, the later one.

    Raises: OutputExistsError if `path` exists (before and after the block) without `force`.
    """
    target = Path(path)
    _require_parent(target)
    refuse_overwrite(target, force=force)
    temporary = _temporary_sibling(target)
    try:
        yield temporary
        _sync_file(temporary)
        refuse_overwrite(target, force=force)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a new temporary sibling directory of `path`; rename it to `path` on success.

    With `force` an existing directory is moved aside first and removed after the rename, so that a crash
    between the two leaves either the old or the new one under a readable name.

    Raises: OutputExistsError if `path` exists without `force`.
    """
    target = Path(path)
    _require_parent(target)
    refuse_overwrite(target, force=force)
    temporary = _temporary_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        _replace_directory(temporary, target, force=force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_directory(temporary: Path, target: Path, *, force: bool) -> None:
    if not target.exists():
        try:
            os.rename(temporary, target)
            return
        except OSError:
            # Another writer finished between the check and the rename.
            if not target.exists():
                raise
    refuse_overwrite(target, force=force)
    aside = _temporary_sibling(target)
    os.rename(target, aside)
    os.rename(temporary, target)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())

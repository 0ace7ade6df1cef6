"""Write to a temporary sibling, rename when whole: a reader never sees half an artefact.

A process that is killed outright leaves its hidden sibling `.tmp-…` behind, and the target as it was.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genossm.core.errors import OutputError, OutputExistsError

_ATTEMPTS = 20
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
# What the user can mend. Any other OSError inside a block is somebody else's and keeps its traceback.
_USER_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG}


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, or what it links to, is there and is a pipe, a socket or a device."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Raise `OutputExistsError` if `path` exists (a broken link too) and `force` is not set.

    A device or a pipe is refused under `force` too: a file in its place would take it from everybody.
    """
    if is_stream(path):
        raise OutputExistsError(
            f"{path} is a device or pipe; for standard output pass -, else choose the path of a file to write."
        )
    if not force and os.path.lexists(path):
        raise OutputExistsError(f"{path} exists already. Choose another output, or pass --force to replace it.")


def behind_link(path: Path) -> Path:
    """The file that a link leads to, which is what `force` replaces; `path` itself if it is no link to a file."""
    # Not Path.is_symlink(): it raises for a name that is too long.
    return Path(os.path.realpath(path)) if os.path.islink(path) and path.is_file() else path  # noqa: PTH114


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` on success, delete it on any error.

    A link to a file stays: with `force` the file that it leads to is replaced, by a sibling of that file.
    The rename is atomic within a file system: of two writers without `force` one gets the path and the other an
    error; with `force` one whole file stays, the later one.

    Raises: OutputExistsError if `path` exists (before or after the block) without `force`, or is a directory, a device
    or a pipe; OutputError if its folder is missing, may not be written to, or is full.
    """
    target = Path(path)
    require_parent(target)
    refuse_overwrite(target, force=force)
    if os.path.isdir(target):  # noqa: PTH112
        raise OutputExistsError(f"{target} is a directory; wanted the path of a file to write.")
    target = behind_link(target)
    temporary = _temporary_sibling(target)
    try:
        with readable_write_errors(target):
            yield temporary
            _sync_file(temporary)
            _place_file(temporary, target, force=force)
    finally:
        # Where nothing could be written there is nothing to delete, and the error under way says why.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], *, force: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Yield a new temporary sibling directory of `path`; rename it to `path` on success, delete it on any error.

    With `force` an existing directory is moved aside first and removed after the rename: a crash between the two
    leaves the old one whole under a hidden name.
    marker: name of a file that every artefact of this kind holds. `force` replaces a directory only if it holds
    it or is empty, so that a mistyped path does not remove somebody's folder.

    Raises: OutputExistsError if `path` exists without `force`, or is not what `force` may replace; OutputError if
    its folder is missing, may not be written to, or is full.
    """
    target = Path(path)
    require_parent(target)
    refuse_overwrite(target, force=force)
    _require_replaceable(target, marker)
    temporary = _temporary_sibling(target)
    try:
        with readable_write_errors(target):
            temporary.mkdir()
            yield temporary
            _place_directory(temporary, target, force=force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_sibling(path: Path) -> Path:
    # Suffixes are kept at the end, since pysam and Zarr choose their format by them.
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def require_parent(path: Path) -> None:
    """Raise `OutputError` if the folder that `path` would lie in does not exist."""
    # Not Path.is_dir(): it raises where a folder above may not be looked into, or a name is too long.
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise OutputError(
            f"Cannot write {path}: the folder {path.parent} does not exist. Create it, or choose another output."
        )


def _require_replaceable(target: Path, marker: str | None) -> None:
    if marker is None or not os.path.lexists(target):
        return
    if target.is_dir() and ((target / marker).exists() or not any(target.iterdir())):
        return
    raise OutputExistsError(
        f"{target} holds no {marker}, so it is not what this command writes and --force will not remove it. "
        "Remove it yourself, or choose another output."
    )


@contextmanager
def readable_write_errors(
    target: Path, next_step: str = "Nothing was left behind; choose another output."
) -> Iterator[None]:
    """Turn what the user can mend (no space, no permission) into an `OutputError` about `target`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _USER_ERRORS or not _is_beside(target, error.filename):
            raise
        raise OutputError(f"Cannot write {target}: {error.strerror}. {next_step}") from error


def _is_beside(target: Path, filename: object) -> bool:
    # A full disk is reported by write(), which knows no name.
    return not isinstance(filename, str | os.PathLike) or target.parent.absolute() in Path(filename).absolute().parents


def _place_file(temporary: Path, target: Path, *, force: bool) -> None:
    if not force:
        try:
            # Unlike a rename, a link never replaces what another writer has put there meanwhile.
            os.link(temporary, target)
            return
        except OSError:
            # Taken, or a file system without links.
            refuse_overwrite(target, force=False)
    os.replace(temporary, target)


def _place_directory(temporary: Path, target: Path, *, force: bool) -> None:
    for _ in range(_ATTEMPTS):
        refuse_overwrite(target, force=force)
        # Never without `force`: another writer may have finished since the line above.
        aside = _move_aside(target) if force else None
        try:
            os.rename(temporary, target)
            return
        except OSError as error:
            # A rename does not replace what holds something: another writer was quicker. Without `force` the next
            # round says so.
            if error.errno not in _TAKEN:
                if aside is not None:
                    os.rename(aside, target)
                    aside = None
                raise
        finally:
            _remove(aside)
    raise OutputError(f"Cannot write {target}: other processes keep writing it. Run one at a time.")


def _move_aside(target: Path) -> Path | None:
    aside = _temporary_sibling(target)
    try:
        os.rename(target, aside)
    except FileNotFoundError:
        return None
    return aside


def _remove(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())

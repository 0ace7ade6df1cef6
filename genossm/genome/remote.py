"""Genome stores behind a URL (s3://, gs://, https://, memory://, ...): paths that universal-pathlib reads by fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genossm.core.errors import InputFileError, MissingDependencyError

# pathlib makes one slash of several; either way a one-letter scheme is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a text names something by URL instead of a file of this machine."""
    return _URL.match(str(path)) is not None


def remote_path(url: str) -> Path:
    """What reads like a local path and lies behind `url`, also one that has been through pathlib.

    Raises: MissingDependencyError without universal-pathlib or what it needs for this kind of URL; InputFileError for a
    kind that does not exist.
    """
    url = _URL.sub(lambda match: f"{match[1]}:{'///' if match[1] == 'file' else '//'}", url, count=1)
    try:
        from upath import UPath

        path = UPath(url)
        # The file system is made here, not at the first read, so that a missing package is told now.
        _ = path.fs
    except ImportError as error:
        raise MissingDependencyError(
            f"{url} cannot be read: {error}. Install it: pip install 'genossm[remote]', and for s3:// s3fs, for gs:// "
            "gcsfs."
        ) from error
    except ValueError as error:
        raise InputFileError(f"{url}: {error}. Wanted a path, or a URL such as s3://bucket/ref.zarr.") from error
    return path  # type: ignore[return-value]


def is_remote(path: Path) -> bool:
    """Whether a path came from `remote_path`."""
    return hasattr(path, "fs")


def read_file(path: Path) -> bytes:
    """A file of a store, here or behind a URL.

    Raises: OSError, whatever the file system behind the URL calls it: FileNotFoundError if there is none.
    """
    if not is_remote(path):
        return path.read_bytes()
    (content,) = read_together([path])
    return content


def read_together(paths: Sequence[Path]) -> list[bytes]:
    """The content of several files of one remote store, asked for at once: each answer takes a round trip.

    Raises: OSError as `read_file`.
    """
    names = [str(path.path) for path in paths]  # type: ignore[attr-defined]
    with _os_errors():
        found = paths[0].fs.cat(names)  # type: ignore[attr-defined]
        return [found[name] for name in names]


def read_ranges(paths: Sequence[Path], starts: Sequence[int], ends: Sequence[int | None]) -> list[bytes]:
    """Bytes start to end of several files of one remote store, asked for at once; a start below 0 counts from the end.

    Raises: OSError as `read_file`.
    """
    names = [str(path.path) for path in paths]  # type: ignore[attr-defined]
    with _os_errors():
        return paths[0].fs.cat_ranges(names, list(starts), list(ends), on_error="raise")  # type: ignore[attr-defined]


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each of fsspec's file systems has errors of its own: no credentials, status 500, ...
        raise OSError(f"{type(error).__name__}: {error}") from error


def zarr_location(path: Path) -> Any:
    """What Zarr opens a path by, for reading."""
    if not is_remote(path):
        return str(path)
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(path), read_only=True)

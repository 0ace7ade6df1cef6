"""Compiled kernels on disk. A file that is not whole is a miss, never an error; a write is a rename."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

_MAGIC = b"genossm-kernel-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size

logger = logging.getLogger("genossm_kernels")


def cache_directory() -> Path:
    """`$GENOSSM_KERNEL_CACHE`, else `genossm/kernels` in the user's cache directory."""
    named = os.environ.get("GENOSSM_KERNEL_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "genossm" / "kernels"


def cache_key(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def load(key: str) -> bytes | None:
    """The binary stored under `key`; None if there is none or the file is damaged."""
    path = cache_directory() / f"{key}.cubin"
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    header = len(_MAGIC) + _DIGEST_BYTES
    payload = stored[header:]
    if stored[:header] != _MAGIC + hashlib.sha256(payload).digest():
        logger.warning("%s is damaged; compiling its kernel again", path)
        return None
    return payload


def store(key: str, payload: bytes) -> None:
    """Keep `payload` for later processes. A directory that cannot be written costs a compilation, not a run."""
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=directory, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, directory / f"{key}.cubin")
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        logger.warning("compiled kernels are not kept: %s: %s", directory, error)

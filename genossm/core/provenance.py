"""What made an artefact: package version, digests, command line, seed. Written into every artefact."""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def package_version() -> str:
    """Version of the installed genossm, or "0+unknown" from a bare source tree."""
    try:
        return version("genossm")
    except PackageNotFoundError:
        return "0+unknown"


def command_line() -> str:
    """The command as typed, quoted for a shell; the program's folder is left out, being nobody's business."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True)
class Provenance:
    """Where an artefact came from; `as_dict` is what JSON files and headers carry."""

    command: str = field(default_factory=command_line)
    genossm_version: str = field(default_factory=package_version)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seed: int | None = None
    model_digest: str | None = None
    reference_digest: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping without empty entries."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}
